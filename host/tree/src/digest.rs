//! Content digests of trees: what is in them, never when it was made.
//!
//! # Encoding, version 1
//!
//! Numbers are little endian; `bytes(x)` is the length of `x` as `u32` followed by `x`. The digest
//! of an entry is the sha256 of
//!
//! ```text
//! "wbuild.tree.1\n"
//! kind   u8      1 file, 2 directory, 3 link, 4 character device, 5 block device, 6 FIFO,
//!                7 socket, 8 whiteout, 9 opaque directory
//! mode   u32     07777
//! uid    u32
//! gid    u32
//! count  u32     extended attributes, sorted by name, for each: bytes(name) bytes(value)
//! then by kind
//!   file                    size u64, sha256 of the contents (32 bytes)
//!   directory, opaque dir.  count u32, then for each entry, sorted by name:
//!                           bytes(name), digest of the entry (32 bytes)
//!   link                    bytes(target)
//!   devices                 major u32, minor u32
//! ```
//!
//! - A whiteout has mode, owner and attribute count 0, whatever the file system says.
//! - The mode of a link counts as 0777; Linux gives it no meaning.
//! - `*.overlay.*` attributes and labels of the running machine are not part of it
//!   ([`crate::xattr::is_content`]); with [`Ownership::Ignored`] no attribute is and uid and gid
//!   are 0.
//! - Times, inode numbers and the number of names of an inode are not part of it.
//! - A layer's root directory stands for `/`, which no layer brings: only its entries count, its
//!   own metadata is encoded as mode, owner and attribute count 0.
//!
//! Golden vectors at the end of this module pin the encoding. A change of it needs a new version
//! in the first line.

use sha2::{Digest as _, Sha256};
use wbuild_graph::{ContentDigest, Digest};

use crate::content::{Loader, Mark, Node, Ownership, Sha};
use crate::error::{Missing, Result};
use crate::par::Work;
use crate::path::{RelPath, split};
use crate::root::{Links, Root};
use crate::stat::{Kind, Stat};
use crate::walk::{Entry, walk};
use crate::xattr::{XattrKind, Xattrs};

const VERSION: &[u8] = b"wbuild.tree.1\n";

/// Writes the encoding into a buffer that is kept between entries.
#[derive(Default)]
struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    fn number(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn blob(&mut self, value: &[u8]) {
        self.number(u32::try_from(value.len()).expect("names, targets and attributes are short"));
        self.bytes.extend_from_slice(value);
    }

    fn head(&mut self, kind: u8, mode: u32, uid: u32, gid: u32, xattrs: &Xattrs) {
        self.bytes.clear();
        self.bytes.extend_from_slice(VERSION);
        self.bytes.push(kind);
        self.number(mode);
        self.number(uid);
        self.number(gid);
        self.number(u32::try_from(xattrs.len()).expect("limited by the kernel"));
        for (name, value) in xattrs {
            self.blob(name);
            self.blob(value);
        }
    }

    fn node(&mut self, node: &Node, ownership: Ownership) {
        let none = Xattrs::new();
        if node.mark == Mark::Whiteout {
            self.head(8, 0, 0, 0, &none);
            return;
        }
        let kind = match (node.stat.kind, node.mark) {
            (Kind::File, _) => 1,
            (Kind::Directory, Mark::Opaque) => 9,
            (Kind::Directory, _) => 2,
            (Kind::Symlink, _) => 3,
            (Kind::CharDevice, _) => 4,
            (Kind::BlockDevice, _) => 5,
            (Kind::Fifo, _) => 6,
            (Kind::Socket, _) => 7,
        };
        let mode = if node.stat.kind == Kind::Symlink { 0o777 } else { node.stat.mode };
        match ownership {
            Ownership::Kept => {
                self.head(kind, mode, node.stat.uid, node.stat.gid, &node.xattrs);
            }
            Ownership::Ignored => self.head(kind, mode, 0, 0, &none),
        }
        match node.stat.kind {
            Kind::File => {
                self.bytes.extend_from_slice(&node.stat.size.to_le_bytes());
                let sha = node.sha256.as_ref().expect("files are hashed before they are encoded");
                self.bytes.extend_from_slice(sha);
            }
            Kind::Symlink => {
                let target = node.link.as_ref().expect("links are read before they are encoded");
                self.blob(target);
            }
            Kind::CharDevice | Kind::BlockDevice => {
                self.number(node.stat.rdev.0);
                self.number(node.stat.rdev.1);
            }
            Kind::Directory | Kind::Fifo | Kind::Socket => {}
        }
    }

    fn finish(&self) -> Sha {
        Sha256::digest(&self.bytes).into()
    }
}

/// A directory whose entries are still coming.
struct OpenDir<'a> {
    node: Option<&'a Node>,
    count: u32,
    /// Names and digests, encoded.
    entries: Vec<u8>,
}

impl OpenDir<'_> {
    fn add(&mut self, name: &[u8], digest: &Sha) {
        self.count += 1;
        let len = u32::try_from(name.len()).expect("names are short");
        self.entries.extend_from_slice(&len.to_le_bytes());
        self.entries.extend_from_slice(name);
        self.entries.extend_from_slice(digest);
    }

    fn close(&self, encoder: &mut Encoder, ownership: Ownership) -> Sha {
        match self.node {
            Some(node) => encoder.node(node, ownership),
            None => encoder.head(2, 0, 0, 0, &Xattrs::new()),
        }
        encoder.number(self.count);
        encoder.bytes.extend_from_slice(&self.entries);
        encoder.finish()
    }
}

/// Digest of one node that is no directory.
pub(crate) fn node_digest(node: &Node, ownership: Ownership) -> ContentDigest {
    let mut encoder = Encoder::default();
    encoder.node(node, ownership);
    wrap(encoder.finish())
}

/// Digest of a directory whose entries are `nodes` in walk order. `top` is its own metadata; none
/// if that does not count.
pub(crate) fn fold(top: Option<&Node>, nodes: &[Node], ownership: Ownership) -> ContentDigest {
    let mut encoder = Encoder::default();
    let mut stack = vec![OpenDir { node: top, count: 0, entries: Vec::new() }];
    // Closes directories until the one at `depth` is the innermost.
    let close_to = |stack: &mut Vec<OpenDir<'_>>, depth: usize, encoder: &mut Encoder| {
        while stack.len() > depth {
            let done = stack.pop().expect("deeper than depth");
            let digest = done.close(encoder, ownership);
            let path = done.node.expect("only the first has no node").path.as_bytes();
            stack.last_mut().expect("depth is at least 1").add(split(path).1, &digest);
        }
    };
    for node in nodes {
        let depth = node.path.names().count();
        close_to(&mut stack, depth, &mut encoder);
        if node.stat.is_dir() && node.mark != Mark::Whiteout {
            stack.push(OpenDir { node: Some(node), count: 0, entries: Vec::new() });
        } else {
            encoder.node(node, ownership);
            let digest = encoder.finish();
            let name = split(node.path.as_bytes()).1;
            stack.last_mut().expect("the first stays").add(name, &digest);
        }
    }
    close_to(&mut stack, 1, &mut encoder);
    wrap(stack[0].close(&mut encoder, ownership))
}

fn wrap(sha: Sha) -> ContentDigest {
    ContentDigest(Digest::from_bytes(sha))
}

/// A node for something that was only looked at.
pub(crate) fn bare(path: RelPath, stat: Stat) -> Node {
    Node::from(Entry { path, stat, implied: false })
}

/// The digest of what is at `path`: a file or a whole directory, its own metadata included, its
/// name not. The tree must not change meanwhile.
///
/// # Errors
/// Nothing is there, or it cannot be read. Links in `path` are not followed.
pub fn tree_digest(
    root: &Root,
    path: &RelPath,
    ownership: Ownership,
    work: &Work,
) -> Result<ContentDigest> {
    let Some(stat) = root.stat(path, Links::Refuse)? else {
        return Err(Missing::new(path.to_string(), root.place()).error());
    };
    let base = RelPath::root();
    let loader =
        Loader { root, base: &base, ownership, mutable: false, layer: None, contents: true };
    let mut top = [bare(path.clone(), stat)];
    loader.load(&mut top, work)?;
    if !stat.is_dir() {
        return Ok(node_digest(&top[0], ownership));
    }
    // A tree of one layer may be given as that layer's directory, with its whiteouts.
    let entries = walk(root, path, &[], work)?.into_iter();
    let mut nodes: Vec<Node> =
        entries.filter(|entry| !entry.stat.is_whiteout()).map(Node::from).collect();
    Loader { base: path, ..loader }.load(&mut nodes, work)?;
    Ok(fold(Some(&top[0]), &nodes, ownership))
}

/// The entries of a layer, i.e. of an overlay's upper directory, in walk order, with attributes,
/// link targets, whiteouts and opaque marks, without the contents of files.
///
/// # Errors
/// It cannot be read, or an entry refers to another layer (redirects, metadata-only copies).
pub fn read_layer(upper: &Root, kind: XattrKind, work: &Work) -> Result<Vec<Node>> {
    load_layer(upper, kind, |_| (), false, work)
}

/// The digest of a layer: [`read_layer`] and the contents of the files.
///
/// # Errors
/// As for [`read_layer`].
pub fn layer_digest(upper: &Root, kind: XattrKind, work: &Work) -> Result<ContentDigest> {
    let nodes = load_layer(upper, kind, |_| (), true, work)?;
    Ok(layer_nodes_digest(&nodes))
}

/// The digest of a layer from its nodes, the contents of files hashed, in walk order. For those
/// who have hashed the contents anyway.
///
/// # Panics
/// A file has no digest.
pub fn layer_nodes_digest(nodes: &[Node]) -> ContentDigest {
    fold(None, nodes, Ownership::Kept)
}

/// `known` may say what is known of an entry already, so that it is not read.
pub(crate) fn load_layer(
    upper: &Root,
    kind: XattrKind,
    known: impl Fn(&mut Node),
    contents: bool,
    work: &Work,
) -> Result<Vec<Node>> {
    let base = RelPath::root();
    let mut nodes: Vec<Node> = walk(upper, &base, &[], work)?.into_iter().map(Node::from).collect();
    nodes.iter_mut().for_each(known);
    let loader = Loader {
        root: upper,
        base: &base,
        ownership: Ownership::Kept,
        mutable: false,
        layer: Some(kind),
        contents,
    };
    loader.load(&mut nodes, work)?;
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stat::Timestamp;

    fn stat(kind: Kind, mode: u32) -> Stat {
        Stat {
            kind,
            mode,
            uid: 1,
            gid: 2,
            nlink: 1,
            size: 0,
            allocated: 0,
            inode: 99,
            device: (8, 1),
            rdev: (0, 0),
            mtime: Timestamp::from_secs(5),
            ctime: Timestamp::from_secs(6),
        }
    }

    fn node(path: &str, kind: Kind, mode: u32) -> Node {
        bare(RelPath::clean(path).unwrap(), stat(kind, mode))
    }

    fn file(path: &str, text: &[u8]) -> Node {
        let mut node = node(path, Kind::File, 0o644);
        node.stat.size = text.len() as u64;
        node.sha256 = Some(Sha256::digest(text).into());
        node
    }

    fn sample() -> Vec<Node> {
        let mut link = node("dir/link", Kind::Symlink, 0o777);
        link.link = Some(b"../a".as_slice().into());
        let mut device = node("dev", Kind::CharDevice, 0o600);
        device.stat.rdev = (1, 3);
        let mut gone = node("gone", Kind::CharDevice, 0o0);
        gone.mark = Mark::Whiteout;
        let mut opaque = node("opaque", Kind::Directory, 0o700);
        opaque.mark = Mark::Opaque;
        opaque.xattrs = vec![(b"user.x".as_slice().into(), b"1".as_slice().into())];
        vec![
            file("a", b"hello"),
            device,
            node("dir", Kind::Directory, 0o755),
            file("dir/b", b""),
            link,
            gone,
            opaque,
            node("pipe", Kind::Fifo, 0o644),
            node("sock", Kind::Socket, 0o644),
        ]
    }

    fn hex(digest: ContentDigest) -> String {
        digest.digest().hex()
    }

    /// Computed once by an independent program from the description at the top of this module.
    #[test]
    fn golden_vectors() {
        let nodes = sample();
        let top = node("", Kind::Directory, 0o755);
        let one = |node: &Node| hex(node_digest(node, Ownership::Kept));
        let wanted = include_str!("../tests/golden/digests.txt");
        let found = [
            ("file", one(&nodes[0])),
            ("file-ignored", hex(node_digest(&nodes[0], Ownership::Ignored))),
            ("device", one(&nodes[1])),
            ("link", one(&nodes[4])),
            ("whiteout", one(&nodes[5])),
            ("fifo", one(&nodes[7])),
            ("socket", one(&nodes[8])),
            ("empty-layer", hex(fold(None, &[], Ownership::Kept))),
            ("layer", hex(fold(None, &nodes, Ownership::Kept))),
            ("tree", hex(fold(Some(&top), &nodes[..5], Ownership::Kept))),
            ("tree-ignored", hex(fold(Some(&top), &nodes[..5], Ownership::Ignored))),
        ];
        let found: String = found.iter().map(|(name, hex)| format!("{name} {hex}\n")).collect();
        // The file has a further line, for selections.
        assert!(wanted.starts_with(&found), "found:\n{found}");
    }

    #[test]
    fn every_part_of_an_entry_counts_and_times_do_not() {
        let base = hex(fold(None, &sample(), Ownership::Kept));
        type Change = fn(&mut Vec<Node>);
        let changes: &[(&str, Change)] = &[
            ("content", |n| n[0].sha256 = Some([1; 32])),
            ("size", |n| n[0].stat.size += 1),
            ("mode", |n| n[0].stat.mode = 0o755),
            ("setuid", |n| n[0].stat.mode |= 0o4000),
            ("uid", |n| n[3].stat.uid = 7),
            ("gid", |n| n[2].stat.gid = 7),
            ("xattr", |n| n[3].xattrs.push((b"user.a".as_slice().into(), Box::default()))),
            ("xattr value", |n| n[6].xattrs[0].1 = b"2".as_slice().into()),
            ("link", |n| n[4].link = Some(b"a".as_slice().into())),
            ("device", |n| n[1].stat.rdev = (1, 5)),
            ("name", |n| n[0].path = RelPath::clean("A").unwrap()),
            ("kind", |n| n[7].stat.kind = Kind::Socket),
            ("opaque", |n| n[6].mark = Mark::None),
            ("whiteout", |n| n[5].mark = Mark::None),
            ("removed", |n| drop(n.pop())),
            ("moved up", |n| n[3].path = RelPath::clean("e").unwrap()),
        ];
        let mut seen = vec![base.clone()];
        for (what, change) in changes {
            let mut nodes = sample();
            change(&mut nodes);
            nodes.sort_by(|a, b| a.path.cmp(&b.path));
            let digest = hex(fold(None, &nodes, Ownership::Kept));
            assert!(!seen.contains(&digest), "{what}");
            seen.push(digest);
        }
        let mut nodes = sample();
        for node in &mut nodes {
            node.stat.mtime = Timestamp::from_secs(77);
            node.stat.ctime = Timestamp::from_secs(78);
            node.stat.inode = 1;
            node.stat.nlink = 3;
            node.stat.allocated = 4096;
            node.stat.device = (9, 9);
            node.implied = true;
            // A new field does not compile here before one of the lists in this test has it.
            let Node { path: _, stat, implied: _, mark: _, xattrs: _, link: _, sha256: _ } = &*node;
            #[rustfmt::skip]
            let Stat {
                kind: _, mode: _, uid: _, gid: _, nlink: _, size: _, allocated: _, inode: _,
                device: _, rdev: _, mtime: _, ctime: _,
            } = stat;
        }
        nodes[5].stat.uid = 9;
        assert_eq!(hex(fold(None, &nodes, Ownership::Kept)), base);
    }

    #[test]
    fn ignored_ownership_leaves_owner_and_attributes_out() {
        let base = hex(fold(None, &sample(), Ownership::Ignored));
        let mut nodes = sample();
        for node in &mut nodes {
            node.stat.uid = 1000;
            node.stat.gid = 1000;
            node.xattrs = vec![(b"user.y".as_slice().into(), Box::default())];
        }
        assert_eq!(hex(fold(None, &nodes, Ownership::Ignored)), base);
    }
}
