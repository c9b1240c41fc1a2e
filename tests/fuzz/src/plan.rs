//! A whole build, over a host that answers what the input says.

use wbuild_dockerfile::describe;

use crate::Recorder;
use crate::seeds;

/// Before the first NUL byte stand the facts of the request, as in `request.txt` of a case folder,
/// after it the definition.
pub fn request_and_definition(data: &[u8]) -> (String, &[u8]) {
    let at = data.iter().position(|byte| *byte == 0);
    let (request, definition) = match at {
        Some(at) => (String::from_utf8_lossy(&data[..at]).into_owned(), &data[at + 1..]),
        None => (String::new(), data),
    };
    // No input is worth more time for being longer.
    let request = request
        .lines()
        .filter(|line| !line.starts_with("pad "))
        .fold(String::new(), |all, line| all + line + "\n");
    (request, definition)
}

/// The input is a request and a Dockerfile.
pub fn check(data: &[u8]) {
    let (request, dockerfile) = request_and_definition(data);
    let recorder = || Recorder::lenient(dockerfile.to_vec(), &request).0;
    // The host looks at every place and every node that it is told.
    let record = recorder().run();
    assert_eq!(record, recorder().run(), "it differs each time");
    let ended = |line: &str| line.starts_with("result ") || line.starts_with("failed ");
    assert!(record.lines().any(ended), "neither a result nor a failure: {record}");
    recorder().attempt(|host| describe::check(host, None));
    recorder().attempt(|host| describe::targets(host).map(drop));
    recorder().attempt(|host| describe::parameters(host, None).map(drop));
}

/// The case folders.
pub fn seeds() -> Vec<Vec<u8>> {
    let join = |case: seeds::Case| [case.request.as_bytes(), b"\0", &case.dockerfile].concat();
    seeds::cases().into_iter().map(join).collect()
}
