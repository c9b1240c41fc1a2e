//! What the process of a plugin says that may have been taken over by its guest.

use wbuild_isolate::{Malformed, claimed, weigh};

/// Memory that a frame may take.
const LIMIT: usize = 1 << 20;

/// The input is a frame without its length.
pub fn check(data: &[u8]) {
    let said = claimed(data, LIMIT);
    let weight = match weigh(data, LIMIT) {
        Ok(weight) => weight,
        // Nothing of it is looked at that is too heavy, or no value.
        Err(malformed) => return assert_eq!(said, Err(malformed)),
    };
    assert!(data.len() <= weight && weight <= LIMIT);
    // The bound is what it says, to the byte.
    assert_eq!(weigh(data, weight), Ok(weight));
    assert_eq!(weigh(data, weight - 1), Err(Malformed::Weight));
    match said {
        Ok(said) => {
            // There is one way to write it, and it means the same.
            let again = claimed(&said.0, usize::MAX).expect("it was written by us");
            assert_eq!(again, said);
        }
        Err(malformed) => assert_eq!(malformed, Malformed::Message),
    }
}

/// The end of a build. What else is said is kept as frames of real plugins.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![b"\x81\xa4Done\x81\xa2Ok\xa7Nothing".to_vec()]
}
