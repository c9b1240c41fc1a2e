//! Encodings: headers, numbers, extended headers, sparse files, ends, and compressed streams.

use std::io::Read;

use super::*;

/// A file `a` with the content `content`.
fn a() -> Vec<u8> {
    raw(b'0', "a", b"content", |_| ())
}

/// That file with a changed header.
fn changed(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    raw(b'0', "a", b"content", change)
}

fn put(at: usize, bytes: &'static [u8]) -> impl FnOnce(&mut [u8]) {
    move |header| header[at..at + bytes.len()].copy_from_slice(bytes)
}

fn octal(number: u64) -> Vec<u8> {
    format!("{number:011o}\0").into_bytes()
}

/// A file in GNU's own sparse format: its pieces, its size and the data of the pieces.
fn old_sparse(pieces: &[(u64, u64)], size: u64, data: &[u8], more: &[u8]) -> Vec<u8> {
    let mut out = raw(b'S', "a", data, |header| {
        header[257..265].copy_from_slice(b"ustar  \0");
        for (n, (offset, length)) in pieces.iter().enumerate() {
            let at = 386 + 24 * n;
            header[at..at + 12].copy_from_slice(&octal(*offset));
            header[at + 12..at + 24].copy_from_slice(&octal(*length));
        }
        header[482] = u8::from(!more.is_empty());
        header[483..495].copy_from_slice(&octal(size));
    });
    out.splice(BLOCK..BLOCK, more.iter().copied());
    out
}

fn sparse(map: &str, size: &str) -> Vec<u8> {
    let pieces = map.split(',').count() / 2;
    let records = [
        record("GNU.sparse.size", size),
        record("GNU.sparse.numblocks", pieces.to_string()),
        record("GNU.sparse.map", map),
    ];
    [pax(b'x', &records), a()].concat()
}

/// Sparse format 1.0: the map stands in front of the data.
fn sparse_1_0(map: &str, size: &str, data: &[u8]) -> Vec<u8> {
    let records = [
        record("GNU.sparse.major", "1"),
        record("GNU.sparse.minor", "0"),
        record("GNU.sparse.name", "a"),
        record("GNU.sparse.realsize", size),
    ];
    let mut body = map.as_bytes().to_vec();
    body.resize(body.len().next_multiple_of(BLOCK), 0);
    body.extend_from_slice(data);
    [pax(b'x', &records), raw(b'0', "GNUSparseFile.0/a", &body, |_| ())].concat()
}

/// `a` under the name or target that a GNU header gives.
fn gnu_long(flag: u8, text: &[u8], then: Vec<u8>) -> Vec<u8> {
    [raw(flag, "././@LongLink", text, put(257, b"ustar  \0")), then].concat()
}

#[rustfmt::skip]
fn numbers() -> Vec<(&'static str, Vec<u8>, Want)> {
    use Want::{Refused, Taken, Unlike};
    let link = |change: fn(&mut [u8])| raw(b'2', "a", b"", change);
    vec![
        ("plain", a(), Taken),
        ("of the first tar", changed(|h| h[257..].fill(0)), Taken),
        ("of GNU", changed(put(257, b"ustar  \0")), Taken),
        ("unknown magic", changed(put(257, b"magic!!!")), Taken),
        ("old directory", raw(0, "d/", b"", |_| ()), Taken),
        ("directory without a slash", raw(b'5', "d", b"", |_| ()), Taken),
        ("contiguous file", raw(b'7', "a", b"content", |_| ()), Unlike("it lists it with a letter of its own")),
        ("checksum off by one", { let mut a = a(); a[0] ^= 1; a }, Refused),
        ("checksum of nothing", { let mut a = a(); a[148..156].fill(0); a }, Refused),
        ("checksum no number", { let mut a = a(); a[148..156].fill(b'x'); a }, Refused),
        (
            "checksum of signed bytes",
            {
                let mut a = raw(b'0', "\u{e4}", b"content", |_| ());
                let sum: i64 = a[..148].iter().chain(&a[156..BLOCK]).map(|b| i64::from(*b as i8)).sum();
                a[148..155].copy_from_slice(format!("{:06o}\0", sum + 256).as_bytes());
                a
            },
            Taken,
        ),
        ("unknown type", changed(|h| h[156] = b'Z'), Refused),
        ("volume label", [raw(b'V', "label", b"", |_| ()), a()].concat(), Unlike("it lists the label")),
        ("name without an end", raw(b'0', &"n".repeat(100), b"content", |_| ()), Taken),
        ("name and prefix", changed(|h| h[345..348].copy_from_slice(b"pre")), Taken),
        ("prefix upwards", changed(|h| h[345..347].copy_from_slice(b"..")), Refused),
        ("name empty", raw(b'0', "", b"content", |_| ()), Refused),
        ("name with NUL and more", changed(put(0, b"a\0/../../canary/file")), Taken),
        ("name of bytes", changed(put(0, b"\xff\xfe\x80")), Taken),
        ("name with a line end", changed(put(0, b"a\tb")), Taken),
        ("slash after a file", changed(put(0, b"a/")), Refused),
        ("link without a target", link(|_| ()), Refused),
        ("link with NUL and more", link(|h| h[157..162].copy_from_slice(b"b\0/..")), Taken),
        ("link with data", raw(b'2', "a", b"content", |h| h[157] = b'x'), Refused),
        ("directory with data", raw(b'5', "d/", b"content", |_| ()), Refused),
        ("pipe with data", raw(b'6', "a", b"content", |_| ()), Refused),
        ("hard link with a size", [a(), raw(b'1', "b", b"", |h| { h[157] = b'a'; h[124..135].copy_from_slice(b"00000000007"); })].concat(), Taken),
        ("size no number", changed(put(124, b"zzzz")), Refused),
        ("size negative", changed(|h| h[124..136].fill(0xff)), Refused),
        ("size with blanks", changed(put(124, b"          7 ")), Taken),
        ("size in eights and nines", changed(put(124, b"00000000009")), Refused),
        ("size in base 256", changed(put(124, b"\x80\0\0\0\0\0\0\0\0\0\0\x07")), Taken),
        ("size over 2^63", changed(put(124, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff")), Refused),
        ("size over 2^64", changed(put(124, b"\x80\xff\0\0\0\0\0\0\0\0\0\x07")), Refused),
        ("size beyond the end", changed(put(124, b"77777777777\0")), Refused),
        ("size of twelve digits", changed(put(124, b"000000000007")), Taken),
        ("uid in base 256", changed(put(108, b"\x80\0\0\0\0\x0f\x42\x40")), Taken),
        ("uid past 32 bits", changed(put(108, b"\x80\0\0\x01\0\0\0\0")), Refused),
        ("uid of nobody at all", changed(put(108, b"\x80\0\0\0\xff\xff\xff\xff")), Refused),
        ("gid negative", changed(|h| h[116..124].fill(0xff)), Refused),
        ("mode with more bits", changed(put(100, b"0100644")), Taken),
        ("mode with all special bits", changed(put(100, b"0007111")), Taken),
        ("mode no number", changed(put(100, b"rw-r--r")), Refused),
        ("time negative", changed(put(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf0")), Taken),
        ("time of the year 10000", changed(put(136, b"\x80\0\0\0\0\0\0\x3a\xff\xf4\x41\x80")), Taken),
        ("time as late as may be", changed(put(136, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")), Unlike("it prints no such date")),
        ("time past 2^63", changed(put(136, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff")), Refused),
        ("device no number", raw(b'3', "a", b"", put(329, b"zz")), Refused),
        ("device over 2^32", raw(b'3', "a", b"", put(329, b"\x80\0\0\x01\0\0\0\0")), Refused),
    ]
}

#[rustfmt::skip]
fn extended() -> Vec<(&'static str, Vec<u8>, Want)> {
    use Want::{Refused, Taken, Unlike};
    let x = |records: &[Vec<u8>]| [pax(b'x', records), a()].concat();
    let g = |records: &[Vec<u8>]| [pax(b'g', records), a()].concat();
    let text = |text: &[u8]| [raw(b'x', "PaxHeader", text, |_| ()), a()].concat();
    let link = |records: &[Vec<u8>]| {
        [pax(b'x', records), raw(b'2', "a", b"", put(157, b"target"))].concat()
    };
    let long = "l".repeat(150);
    vec![
        ("pax name", x(&[record("path", "b")]), Taken),
        ("pax name of bytes", x(&[record("path", b"\xff\xfe")]), Taken),
        ("pax name with NUL", x(&[record("path", "a\0b")]), Refused),
        ("pax name upwards", x(&[record("path", "../canary/file")]), Refused),
        ("pax name empty", x(&[record("path", "")]), Refused),
        ("pax name twice", x(&[record("path", "b"), record("path", "c")]), Taken),
        ("pax name of a directory", x(&[record("path", "a/")]), Refused),
        ("pax name with a line end", x(&[record("path", "a\nb")]), Unlike("its list has a line more")),
        ("pax headers in a row", [pax(b'x', &[record("path", "b")]), x(&[record("mtime", "7")])].concat(), Refused),
        ("pax target", link(&[record("linkpath", "other")]), Taken),
        ("pax target with NUL", link(&[record("linkpath", "a\0b")]), Refused),
        ("pax target empty", link(&[record("linkpath", "")]), Refused),
        ("pax size too large", x(&[record("size", "99999")]), Refused),
        ("pax size too small", x(&[record("size", "0")]), Refused),
        ("pax size of less", x(&[record("size", "3")]), Taken),
        ("pax size negative", x(&[record("size", "-7")]), Refused),
        ("pax size over 2^64", x(&[record("size", "99999999999999999999")]), Refused),
        ("pax size of a link", link(&[record("size", "7")]), Refused),
        ("pax size with a fraction", x(&[record("size", "7.9")]), Refused),
        ("pax uid", x(&[record("uid", "1000000"), record("gid", "7")]), Taken),
        ("pax uid over 2^32", x(&[record("uid", "4294967296")]), Refused),
        ("pax uid negative", x(&[record("uid", "-1")]), Refused),
        ("pax uid in hex", x(&[record("uid", "0x0")]), Refused),
        ("pax uid with a fraction", x(&[record("uid", "0.5")]), Refused),
        ("pax time with a fraction", x(&[record("mtime", "7.5")]), Taken),
        ("pax time before 1970", x(&[record("mtime", "-1.5")]), Unlike("it adds the fraction of a negative time")),
        ("pax time just before 1970", x(&[record("mtime", "-0.5")]), Unlike("it loses the sign of zero")),
        ("pax time negative", x(&[record("mtime", "-7")]), Taken),
        ("pax time without a number", x(&[record("mtime", "now")]), Refused),
        ("pax time past 2^63", x(&[record("mtime", "9223372036854775808")]), Refused),
        ("pax key that nobody knows", x(&[record("VENDOR.key", "x")]), Taken),
        ("pax attribute with a bad name", x(&[record("SCHILY.xattr.user.a\0b", "x")]), Refused),
        ("pax attribute with a long name", x(&[record(&format!("SCHILY.xattr.user.{}", "n".repeat(300)), "x")]), Refused),
        ("pax attribute of 100 KiB", x(&[record("SCHILY.xattr.user.a", "v".repeat(100 << 10))]), Refused),
        ("pax length of too much", text(b"99 a=b\n"), Refused),
        ("pax length of too little", text(b"3 a=b\n"), Refused),
        ("pax length of zero", text(b"0 a=b\n"), Refused),
        ("pax length over 2^64", text(b"99999999999999999999999 a=b\n"), Refused),
        ("pax length with a sign", text(b"+6 a=b\n"), Refused),
        ("pax without a line end", text(b"6 a=bc"), Refused),
        ("pax without a key", text(b"5 =b\n"), Refused),
        ("pax without an equals sign", text(b"5 ab\n"), Refused),
        ("pax without a length", text(b"a=b\n"), Refused),
        ("pax with zeros behind", text(b"6 a=b\n\0\0\0\0"), Refused),
        ("pax at the end", pax(b'x', &[record("path", "b")]), Refused),
        ("pax for all: comment", g(&[record("comment", "x")]), Taken),
        ("pax for all: name", g(&[record("path", "b")]), Refused),
        ("pax for all: size", g(&[record("size", "0")]), Refused),
        ("pax for all: owner", g(&[record("uid", "0")]), Refused),
        ("pax for all: attribute", g(&[record("SCHILY.xattr.user.a", "x")]), Refused),
        ("pax for all at the end", [a(), pax(b'g', &[record("comment", "x")])].concat(), Taken),
        ("GNU name", gnu_long(b'L', format!("{long}\0").as_bytes(), a()), Taken),
        ("GNU name without NUL", gnu_long(b'L', long.as_bytes(), a()), Taken),
        ("GNU name with NUL and more", gnu_long(b'L', b"b\0/../../canary/file", a()), Taken),
        ("GNU name upwards", gnu_long(b'L', b"../canary/file\0", a()), Refused),
        ("GNU name empty", gnu_long(b'L', b"\0", a()), Refused),
        ("GNU name twice", gnu_long(b'L', b"b\0", gnu_long(b'L', b"c\0", a())), Taken),
        ("GNU name over a megabyte", gnu_long(b'L', &vec![b'x'; (1 << 20) + 1], a()), Refused),
        ("GNU name at the end", gnu_long(b'L', b"b\0", Vec::new()), Refused),
        ("GNU target", gnu_long(b'K', format!("{long}\0").as_bytes(), raw(b'2', "a", b"", put(157, b"t"))), Taken),
        ("GNU name and pax name", gnu_long(b'L', b"b\0", x(&[record("path", "c")])), Refused),
        ("GNU name and the same pax name", gnu_long(b'L', b"b\0", x(&[record("path", "b")])), Taken),
        ("pax name and GNU name", [pax(b'x', &[record("path", "c")]), gnu_long(b'L', b"b\0", a())].concat(), Refused),
        (
            "GNU target and pax target",
            gnu_long(b'K', b"b\0", link(&[record("linkpath", "c")])),
            Refused,
        ),
    ]
}

#[rustfmt::skip]
fn holes() -> Vec<(&'static str, Vec<u8>, Want)> {
    use Want::{Refused, Taken, Unlike};
    let seven = b"content";
    let more = |pieces: usize| {
        let mut block = vec![0; BLOCK];
        for n in 0..pieces {
            block[24 * n..24 * n + 12].copy_from_slice(&octal(1024 * (n as u64 + 1)));
            block[24 * n + 12..24 * n + 24].copy_from_slice(&octal(0));
        }
        block
    };
    let pairs = |numbers: &[(&str, &str)]| {
        let pieces = (numbers.len() / 2).to_string();
        let mut records = vec![record("GNU.sparse.size", "2000"), record("GNU.sparse.numblocks", pieces)];
        records.extend(numbers.iter().map(|(key, value)| record(key, value)));
        [pax(b'x', &records), a()].concat()
    };
    vec![
        ("sparse, old", old_sparse(&[(512, 7), (2000, 0)], 2000, seven, &[]), Taken),
        ("sparse, old, of a hole alone", old_sparse(&[(2000, 0)], 2000, b"", &[]), Taken),
        ("sparse, old, with more pieces", old_sparse(&[(0, 7), (512, 0), (600, 0), (700, 0)], 3072, seven, &more(3)), Taken),
        ("sparse, old, without an end", old_sparse(&[(512, 7)], 2000, seven, &[]), Unlike("it loses a hole at the end that no piece follows")),
        ("sparse, old, beyond its size", old_sparse(&[(512, 7)], 100, seven, &[]), Refused),
        ("sparse, old, of other data", old_sparse(&[(0, 3)], 2000, seven, &[]), Refused),
        ("sparse, old, backwards", old_sparse(&[(512, 3), (0, 4)], 2000, seven, &[]), Refused),
        ("sparse 0.0", pairs(&[("GNU.sparse.offset", "512"), ("GNU.sparse.numbytes", "7"), ("GNU.sparse.offset", "2000"), ("GNU.sparse.numbytes", "0")]), Taken),
        ("sparse 0.0, out of turn", pairs(&[("GNU.sparse.numbytes", "7"), ("GNU.sparse.offset", "512")]), Refused),
        ("sparse 0.0, offset alone", pairs(&[("GNU.sparse.offset", "512")]), Refused),
        ("sparse 0.1", sparse("512,7,2000,0", "2000"), Taken),
        ("sparse 0.1, empty map", sparse("", "2000"), Refused),
        ("sparse 0.1, beyond its size", sparse("0,7", "3"), Refused),
        ("sparse 0.1, backwards", sparse("100,3,0,4", "200"), Refused),
        ("sparse 0.1, overlapping", sparse("0,4,2,3", "200"), Refused),
        ("sparse 0.1, of other data", sparse("0,3", "200"), Refused),
        ("sparse 0.1, odd", sparse("0,7,9", "200"), Refused),
        ("sparse 0.1, no number", sparse("0,x", "200"), Refused),
        ("sparse 0.1, over 2^64", sparse("18446744073709551615,7", "200"), Refused),
        ("sparse 0.1, size over 2^63", sparse("0,7", "9223372036854775808"), Refused),
        ("sparse 1.0", sparse_1_0("2\n512\n7\n2000\n0\n", "2000", seven), Taken),
        ("sparse 1.0, more pieces than said", sparse_1_0("1\n0\n3\n3\n4\n", "2000", seven), Refused),
        ("sparse 1.0, fewer pieces than said", sparse_1_0("2\n0\n7\n", "2000", seven), Refused),
        ("sparse 1.0, 10^18 pieces", sparse_1_0("1000000000000000000\n0\n7\n", "2000", seven), Refused),
        ("sparse 1.0, no number", sparse_1_0("one\n0\n7\n", "2000", seven), Refused),
        ("sparse 2.0", [pax(b'x', &[record("GNU.sparse.major", "2"), record("GNU.sparse.minor", "0"), record("GNU.sparse.realsize", "7")]), a()].concat(), Refused),
        ("sparse 1.0 without a size", [pax(b'x', &[record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0")]), a()].concat(), Refused),
        ("sparse upwards", [pax(b'x', &[record("GNU.sparse.name", "../canary/file"), record("GNU.sparse.map", "0,7"), record("GNU.sparse.size", "7")]), a()].concat(), Refused),
    ]
}

#[rustfmt::skip]
fn ends() -> Vec<(&'static str, Vec<u8>, Want)> {
    use Want::{Refused, Taken, Unlike};
    let b = || raw(b'0', "b", b"content", |_| ());
    vec![
        ("nothing", Vec::new(), Unlike("it takes an empty file for no archive")),
        ("end alone", end(), Taken),
        ("no end", a(), Taken),
        ("one zero block", [a(), vec![0; BLOCK]].concat(), Taken),
        ("zero block within", [a(), vec![0; BLOCK], b(), end()].concat(), Refused),
        ("zero block first", [vec![0; BLOCK], a(), end()].concat(), Refused),
        ("zeros behind", [a(), vec![0; 20 * BLOCK]].concat(), Taken),
        ("bytes behind", [a(), end(), b"trailing".to_vec()].concat(), Taken),
        ("bytes behind without an end", [a(), b"trailing".to_vec()].concat(), Refused),
        ("archive behind", [a(), end(), b(), end()].concat(), Taken),
        ("archive behind, upwards", [a(), end(), raw(b'0', "../canary/file", b"x", |_| ()), end()].concat(), Taken),
        ("text", b"no archive at all, but a text that is longer than nothing".repeat(20), Refused),
    ]
}

#[test]
fn f_tar_encodings() {
    let nest = Nest::new();
    let parts = [numbers(), extended(), holes()].into_iter().flatten();
    let whole = parts.map(|(name, part, want)| (name, [part, end()].concat(), want));
    let cases = whole.chain(ends()).map(|(name, archive, want)| Case { name, archive, want });
    try_all("f_tar_encodings", &nest, cases.collect());
}

/// Cut in every block: an archive is taken only where it is cut between two entries.
#[test]
fn f_tar_cut_anywhere() {
    let nest = Nest::new();
    let entries = [
        gnu_long(
            b'L',
            &[&b"d/".repeat(60)[..], b"x"].concat(),
            raw(b'0', "x", &[b'y'; 1500], |_| ()),
        ),
        sparse_1_0("1\n512\n7\n", "2000", b"content"),
        old_sparse(&[(0, 7)], 2000, b"content", &[0; BLOCK]),
        [pax(b'x', &[record("path", "p/".repeat(60) + "x")]), a()].concat(),
        raw(b'5', "d", b"", |_| ()),
    ];
    let archive = [entries.concat(), end()].concat();
    let mut whole = vec![0, archive.len() - 2 * BLOCK, archive.len() - BLOCK];
    whole.extend((1..entries.len()).map(|n| entries[..n].concat().len()));
    for at in (0..archive.len()).step_by(128) {
        let result = apply_layer(&archive[..at], &nest.fresh("layer"));
        nest.check(&format!("cut at {at}"));
        match result {
            Ok(_) => assert!(whole.contains(&at), "taken though it was cut at {at}"),
            Err(error) => {
                assert!(!whole.contains(&at), "refused though it was cut between entries: {error}");
                assert!(is_refusal(&error), "cut at {at}: {error}");
            }
        }
    }
}

fn gzip(input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzEncoder::new(input, flate2::Compression::fast())
        .read_to_end(&mut out)
        .expect("memory");
    out
}

/// Layers may be several compressed streams in a row; nothing else may follow.
#[test]
fn f_tar_compressed_streams() {
    let nest = Nest::new();
    let archive = [a(), raw(b'0', "b", b"content", |_| ()), end()].concat();
    let (first, second) = archive.split_at(700);
    let zstd = |data: &[u8]| zstd::encode_all(data, 3).expect("memory");
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat();
    let damaged = |mut data: Vec<u8>, from_end: usize| {
        let at = data.len() - from_end;
        data[at] ^= 1;
        data
    };
    for (name, layer, want) in [
        ("gzip of two members", [gzip(first), gzip(second)].concat(), true),
        ("gzip of every byte", archive.iter().flat_map(|b| gzip(&[*b])).collect(), true),
        ("gzip with an empty member", [gzip(&archive), gzip(b"")].concat(), true),
        ("gzip with bytes behind", [gzip(&archive), b"trailing".to_vec()].concat(), false),
        (
            "gzip with a broken member behind",
            [gzip(&archive), gzip(b"x")[..12].to_vec()].concat(),
            false,
        ),
        ("gzip cut in its checksum", gzip(&archive)[..gzip(&archive).len() - 6].to_vec(), false),
        ("gzip with a wrong checksum", damaged(gzip(&archive), 6), false),
        ("gzip with a wrong length", damaged(gzip(&archive), 2), false),
        ("gzip, then zstd", [gzip(first), zstd(second)].concat(), false),
        ("gzip in gzip", gzip(&gzip(&archive)), false),
        ("gzip header alone", b"\x1f\x8b".to_vec(), false),
        ("zstd of two frames", [zstd(first), zstd(second)].concat(), true),
        (
            "zstd with frames to skip",
            [&skippable[..], &zstd(first), &skippable, &zstd(second)].concat(),
            true,
        ),
        ("zstd with bytes behind", [zstd(&archive), b"trailing".to_vec()].concat(), false),
        ("zstd cut", zstd(&archive)[..zstd(&archive).len() - 6].to_vec(), false),
        ("zstd header alone", b"\x28\xb5\x2f\xfd".to_vec(), false),
        ("frames to skip alone", skippable.clone(), true),
    ] {
        let root = nest.fresh("layer");
        let result = apply_layer(&layer, &root);
        nest.check(name);
        match result {
            Ok(_) => assert!(want, "{name} must be refused"),
            Err(error) => assert!(!want && is_refusal(&error), "{name}: {error}"),
        }
        if want && name != "frames to skip alone" {
            assert_eq!(contents(&root).len(), 2, "{name}");
        }
    }
}
