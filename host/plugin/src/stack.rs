//! The stacks that guests run on, used again: each start of a guest needs one, and to map it, make its
//! guard page and unmap it would be a quarter of what a start costs.
//!
//! Invariants:
//!
//! - Below every stack lies a page that nobody can touch: what overflows a stack ends in a fault and
//!   never in other memory.
//! - A stack has one user at a time: it is taken off the shelf to be used, and put back when its user
//!   is dropped.
//! - At most [`KEPT`] lie on the shelf, so what they hold of the memory is bounded.
//!
//! What one guest has left on a stack the next does not see: WebAssembly cannot read its native stack.

use std::ops::Range;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use wasmtime::{StackCreator, StackMemory};

/// Most stacks that are kept: rarely do more guests run at the same time.
const KEPT: usize = 4;

/// Makes stacks, and keeps some that are not in use.
#[derive(Clone, Default)]
pub(crate) struct Stacks(Arc<Mutex<Vec<Arc<Mapping>>>>);

impl Stacks {
    fn shelf(&self) -> MutexGuard<'_, Vec<Arc<Mapping>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guard page, and the bytes of a stack above it.
struct Mapping {
    /// Address of the guard page. A number, since nothing here reads or writes there.
    begin: usize,
    guard: usize,
    stack: usize,
}

#[allow(unsafe_code)]
impl Mapping {
    fn new(stack: usize) -> rustix::io::Result<Mapping> {
        let guard = rustix::param::page_size();
        let stack = stack.checked_next_multiple_of(guard).ok_or(Errno::NOMEM)?;
        let whole = stack.checked_add(guard).ok_or(Errno::NOMEM)?;
        let nothing = ProtFlags::empty();
        // SAFETY: a new mapping, where the kernel chooses, changes no other.
        let begin = unsafe { mmap_anonymous(ptr::null_mut(), whole, nothing, MapFlags::PRIVATE)? };
        let mapping = Mapping { begin: begin.expose_provenance(), guard, stack };
        // SAFETY: these bytes are part of the mapping just made, which nobody else knows.
        unsafe {
            mprotect(begin.byte_add(guard), stack, MprotectFlags::READ | MprotectFlags::WRITE)?;
        }
        Ok(mapping)
    }
}

#[allow(unsafe_code)]
impl Drop for Mapping {
    fn drop(&mut self) {
        let begin = ptr::with_exposed_provenance_mut(self.begin);
        // SAFETY: `new` has mapped these bytes, and nobody uses them: a `Stack` owns its mapping as long
        // as it is used, and wasmtime drops it when nothing runs on it any more.
        let unmapped = unsafe { munmap(begin, self.guard + self.stack) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours: {unmapped:?}");
    }
}

/// A stack in use.
struct Stack {
    mapping: Arc<Mapping>,
    stacks: Stacks,
}

impl Drop for Stack {
    fn drop(&mut self) {
        let mut shelf = self.stacks.shelf();
        if shelf.len() < KEPT {
            shelf.push(Arc::clone(&self.mapping));
        }
    }
}

// SAFETY: the mapping is page aligned, as are its parts, begins with a guard page, and is this stack's
// alone until it is dropped.
#[allow(unsafe_code)]
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.range().end)
    }

    fn range(&self) -> Range<usize> {
        let bottom = self.mapping.begin + self.mapping.guard;
        bottom..bottom + self.mapping.stack
    }

    fn guard_range(&self) -> Range<*mut u8> {
        let address = ptr::with_exposed_provenance_mut;
        address(self.mapping.begin)..address(self.mapping.begin + self.mapping.guard)
    }
}

// SAFETY: what it makes is a mapping of its own, or one that its last user has dropped.
#[allow(unsafe_code)]
unsafe impl StackCreator for Stacks {
    fn new_stack(&self, size: usize, zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        let kept = self.shelf().pop();
        let mapping = match kept.filter(|kept| kept.stack == size && !zeroed) {
            Some(mapping) => mapping,
            None => Arc::new(Mapping::new(size).map_err(wasmtime::Error::new)?),
        };
        Ok(Box::new(Stack { mapping, stacks: self.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FIBER_STACK;

    fn stacks(made: usize, stacks: &Stacks) -> Vec<Box<dyn StackMemory>> {
        (0..made).map(|_| stacks.new_stack(FIBER_STACK, false).expect("a stack")).collect()
    }

    /// What /proc says of the mapping that an address lies in: its bounds, and its access.
    fn mapped(address: usize) -> Option<(Range<usize>, String)> {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("a list");
        maps.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let (begin, end) = words.next()?.split_once('-')?;
            let number = |text| usize::from_str_radix(text, 16).ok();
            let range = number(begin)?..number(end)?;
            range.contains(&address).then(|| (range, words.next().unwrap_or("").to_owned()))
        })
    }

    #[test]
    fn a_stack_lies_above_a_page_that_nobody_can_touch() {
        let made = Stacks::default();
        for stack in stacks(KEPT + 2, &made) {
            let (range, guard) = (stack.range(), stack.guard_range());
            assert_eq!(range.len(), FIBER_STACK);
            assert_eq!((stack.top().addr(), guard.end.addr()), (range.end, range.start));
            for (address, access) in [
                (guard.start.addr(), "---p"),
                (guard.end.addr() - 1, "---p"),
                (range.start, "rw-p"),
                (range.end - 1, "rw-p"),
            ] {
                assert_eq!(mapped(address).expect("mapped").1, access);
            }
        }
    }

    #[test]
    fn a_stack_is_used_again_but_never_by_two() {
        let made = Stacks::default();
        let first = stacks(KEPT + 2, &made);
        let begins = |stacks: &[Box<dyn StackMemory>]| {
            let mut begins: Vec<usize> = stacks.iter().map(|stack| stack.range().start).collect();
            begins.sort_unstable();
            begins.dedup();
            begins
        };
        let of_first = begins(&first);
        assert_eq!(of_first.len(), KEPT + 2, "each has its own");
        drop(first);
        assert_eq!(made.shelf().len(), KEPT);
        let second = stacks(KEPT + 2, &made);
        let of_second = begins(&second);
        assert_eq!(of_second.len(), KEPT + 2, "each has its own");
        let again = of_second.iter().filter(|begin| of_first.contains(begin)).count();
        assert!(again >= KEPT, "{again} were used again");
        drop(made.new_stack(FIBER_STACK, true).expect("a stack"));
    }
}
