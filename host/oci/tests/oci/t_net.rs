//! T-NET: whatever happens on the way, what comes out is the blob or a clear error, and little is
//! sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wbuild_graph::Digest;
use wbuild_oci::media::{Descriptor, OCI_LAYER_GZIP};
use wbuild_oci::registry::BlobSink;
use wbuild_oci::{ErrorKind, Reference};

use crate::content::{Chance, Content, Keys, SECRET, client, data, long, pull};
use crate::server::{Answer, Server};
use crate::wire::{Fault, Wire};

/// What the wire and the buffers of both ends hold, which is lost with a connection; far below the
/// 16 MiB that one chunk may have.
const IN_FLIGHT: u64 = 1 << 20;

fn through(wire: &Wire) -> Reference {
    format!("{}/a/b:v1", wire.address).parse().expect("a reference")
}

#[tokio::test]
async fn t_net_cuts_and_resets_lose_nothing() {
    const SIZE: usize = 3 << 20;
    let content = Content::new(&[SIZE]);
    let server = content.serve("127.0.0.1");
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, &content.layers[0]);
    let mut chance = Chance(7);
    let (mut cuts, wanted) = (0, if long() { 500 } else { 40 });
    while cuts < wanted {
        let faults: Vec<Fault> = (0..1 + chance.below(8))
            .map(|_| match chance.below(2) {
                // Enough to count as progress; what a server sends less than that is tried a few times.
                0 => Fault::Cut(80_000 + chance.below(SIZE / 8)),
                _ => Fault::Reset(80_000 + chance.below(SIZE / 8)),
            })
            .collect();
        cuts += faults.len();
        let wire = Wire::new(server.address, faults.clone());
        let mut got = Vec::new();
        let client = client(Keys::default(), &[]);
        client
            .blob(&through(&wire), &descriptor, &mut got)
            .await
            .unwrap_or_else(|error| panic!("{faults:?}: {error:?}"));
        assert!(got == content.layers[0], "{faults:?}");
        let again = wire.carried() - SIZE as u64;
        assert!(again <= faults.len() as u64 * IN_FLIGHT, "{again} bytes came twice: {faults:?}");
    }
}

#[tokio::test]
async fn t_net_a_cut_at_any_place_of_a_pull() {
    let content = Content::new(&[20_000, 300]);
    let server = content.serve("127.0.0.1");
    let mut chance = Chance(8);
    for round in 0..if long() { 300 } else { 21 } {
        // Each request has a connection of its own here: one of them is spoiled.
        let mut faults = vec![Fault::Slow(4096); round % 7];
        let at = chance.below(1_000);
        faults.push(match round % 3 {
            0 => Fault::Cut(at),
            1 => Fault::Reset(at),
            _ => Fault::Stall(at),
        });
        let wire = Wire::new(server.address, faults.clone());
        let got = pull(&client(Keys::default(), &[]), &through(&wire)).await;
        let got = got.unwrap_or_else(|error| panic!("{faults:?}: {error:?}"));
        assert!(got == content.layers, "{faults:?}");
    }
}

#[tokio::test]
async fn t_net_slow_and_silent_servers() {
    let content = Content::new(&[60_000]);
    let server = content.serve("127.0.0.1");
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, &content.layers[0]);
    for (faults, works) in [
        (vec![Fault::Slow(37)], true),
        (vec![Fault::Stall(30_000)], true),
        (vec![Fault::Stall(0)], true),
        (vec![Fault::Stall(10); 20], false),
        (vec![Fault::Cut(10); 20], false),
    ] {
        let began = Instant::now();
        let wire = Wire::new(server.address, faults.clone());
        let mut got = Vec::new();
        let client = client(Keys::default(), &[]);
        let result = client.blob(&through(&wire), &descriptor, &mut got).await;
        assert!(began.elapsed() < Duration::from_secs(10), "{faults:?}: {:?}", began.elapsed());
        match result {
            Ok(()) => assert!(works && got == content.layers[0], "{faults:?}"),
            Err(error) => {
                assert!(!works, "{faults:?}: {error:?}");
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{faults:?}: {error}");
                assert!(error.to_string().contains("127.0.0.1"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn t_net_a_flipped_bit_never_gets_through() {
    let content = Content::new(&[50_000]);
    let server = content.serve("127.0.0.1");
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, &content.layers[0]);
    let mut chance = Chance(9);
    let mut refused = 0;
    for round in 0..if long() { 500 } else { 60 } {
        let at = if round % 2 == 0 { chance.below(250) } else { chance.below(50_000) };
        let wire = Wire::new(server.address, vec![Fault::Flip(at)]);
        let mut got = Vec::new();
        let client = client(Keys::default(), &[]);
        match client.blob(&through(&wire), &descriptor, &mut got).await {
            // A bit of a header that means nothing, or of one that made the client ask again.
            Ok(()) => assert!(got == content.layers[0], "byte {at}"),
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("127.0.0.1"), "byte {at}: {error}");
            }
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn t_net_what_an_earlier_attempt_has_left_is_not_sent_again() {
    let content = Content::new(&[500_000]);
    let layer = &content.layers[0];
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, layer);
    let mut wrong = layer[..300_000].to_vec();
    wrong[5] ^= 1;
    let longer = [&layer[..], b"more"].concat();
    for (name, left, ranges, requests, most) in [
        ("nothing", vec![], true, 1, 510_000),
        ("a part", layer[..400_000].to_vec(), true, 1, 110_000),
        ("all", layer.clone(), true, 0, 0),
        ("a part, without ranges", layer[..400_000].to_vec(), false, 1, 510_000),
        ("a wrong part", wrong, true, 2, 720_000),
        ("all, and wrong", vec![7; 500_000], true, 1, 510_000),
        ("too much", longer, true, 1, 510_000),
    ] {
        let served = content.clone();
        let server = Server::start("127.0.0.1", move |asked| {
            let mut asked = asked.clone();
            if !ranges {
                asked.headers.remove("range");
            }
            served.answer(&asked)
        });
        let wire = Wire::new(server.address, vec![]);
        let mut sink: Vec<u8> = left;
        let client = client(Keys::default(), &[]);
        client.blob(&through(&wire), &descriptor, &mut sink).await.expect(name);
        assert!(sink == *layer, "{name}");
        assert_eq!(sink.digest().await.expect("in memory"), Digest::of(layer));
        assert_eq!(server.asked().len(), requests, "{name}");
        assert!(wire.carried() <= most, "{name}: {} bytes", wire.carried());
    }
}

#[tokio::test]
async fn t_net_a_token_that_runs_out_on_the_way_is_renewed() {
    const SIZE: usize = 600_000;
    let content = Content::new(&[SIZE]);
    let issued = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&issued);
    let tokens = Server::start("127.0.0.1", move |_| {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        Answer::new(200, format!(r#"{{"token":"number-{number}","expires_in":3600}}"#))
    });
    let (served, realm) = (content.clone(), tokens.url("/token"));
    let uses = AtomicUsize::new(0);
    let server = Server::start("127.0.0.1", move |asked| {
        let current = issued.load(Ordering::Relaxed);
        let valid = format!("Bearer number-{}", current.wrapping_sub(1));
        // Each token is good for two requests, however long it says that it lasts.
        if asked.header("authorization") == Some(&valid)
            && uses.fetch_add(1, Ordering::Relaxed) < 2 * current
        {
            return served.answer(asked);
        }
        Answer::challenge(format!(r#"Bearer realm="{realm}",service="s""#))
    });
    // The layer takes several requests, since the wire breaks.
    let mut faults = vec![Fault::Slow(8192); 12];
    faults.extend([Fault::Cut(150_000); 3]);
    let wire = Wire::new(server.address, faults);
    let host = wire.address.to_string();
    let reference = through(&wire);
    let client = client(Keys::of(&[&host]), &[]);
    for _ in 0..2 {
        let got = pull(&client, &reference).await.expect("with new tokens");
        assert!(got == content.layers);
    }
    assert!(tokens.asked().len() >= 4, "{}", tokens.asked().len());
    let shown = format!("{:?}", server.asked());
    assert!(!shown.contains(SECRET), "the password went to the registry");
}

#[tokio::test]
async fn t_net_several_layers_come_at_once_and_not_too_many() {
    let layers: Vec<Vec<u8>> = (0..12).map(|n| data(1_000, n)).collect();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (running, highest, served) = (Arc::clone(&now), Arc::clone(&most), layers.clone());
    let server = Server::start("127.0.0.1", move |asked| {
        let count = running.fetch_add(1, Ordering::SeqCst) + 1;
        highest.fetch_max(count, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(60));
        running.fetch_sub(1, Ordering::SeqCst);
        let found = served.iter().find(|l| asked.target.ends_with(&Digest::of(l).hex()));
        Answer::new(200, &found.expect("a layer")[..])
    });
    let name = server.address.to_string();
    let reference = server.reference("a/b");
    for (concurrency, expected) in [(None, 4), (Some(2), 2), (Some(12), 12)] {
        most.store(0, Ordering::SeqCst);
        let host = wbuild_oci::registry::Host { concurrency, ..Default::default() };
        let client = client(Keys::default(), &[(&name, host)]);
        let fetches = layers.iter().map(|layer| {
            let (client, reference) = (client.clone(), reference.clone());
            let descriptor = Descriptor::of(OCI_LAYER_GZIP, layer);
            tokio::spawn(async move {
                let mut out = Vec::new();
                client.blob(&reference, &descriptor, &mut out).await
            })
        });
        for fetch in fetches.collect::<Vec<_>>() {
            fetch.await.expect("no panic").expect("a layer");
        }
        let seen = most.load(Ordering::SeqCst);
        assert!(seen <= expected && seen > 1, "{seen} at once of {expected}");
    }
}
