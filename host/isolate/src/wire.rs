//! Frames: how the two processes tell where a message ends, and what of it is believed.
//!
//! A frame is its length (four bytes, little endian) and a MessagePack value. One from the child is
//! hostile until proven otherwise: its length is looked at before memory is spent on it, and what it
//! would become in memory is weighed before it is decoded, so that a few bytes cannot become many.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes before a frame that hold its length.
pub(crate) const HEAD: usize = 4;
/// What each value is taken to cost in memory besides its bytes.
const VALUE_COST: usize = 32;
/// How deeply values may be nested; what the two processes say needs a third of it.
const DEPTH: usize = 32;

/// Why a frame is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It ends in the middle of a value, or goes on behind it.
    Length,
    /// It has a type that is never sent.
    Type,
    /// It is nested too deeply.
    Depth,
    /// It would take too much memory.
    Weight,
    /// It is no message of these.
    Message,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Malformed::Length => "its length is not that of its value",
            Malformed::Type => "it has a type that is never sent",
            Malformed::Depth => "its values are nested too deeply",
            Malformed::Weight => "it would take too much memory",
            Malformed::Message => "it is no message that is known",
        })
    }
}

/// A frame with its length before it.
pub(crate) fn encode<T: Serialize + ?Sized>(message: &T) -> Vec<u8> {
    let mut frame = vec![0; HEAD];
    let mut serializer = rmp_serde::Serializer::new(&mut frame)
        .with_struct_map()
        .with_bytes(rmp_serde::config::BytesMode::ForceAll);
    message.serialize(&mut serializer).expect("messages are values of MessagePack");
    let length = u32::try_from(frame.len() - HEAD).expect("a message is shorter than 4 GiB");
    frame[..HEAD].copy_from_slice(&length.to_le_bytes());
    frame
}

/// The message of a frame that is trusted.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Malformed> {
    rmp_serde::from_slice(body).map_err(|_| Malformed::Message)
}

/// The message of a frame that is not: it may become `limit` bytes at most.
pub(crate) fn decode_claimed<T: DeserializeOwned>(
    body: &[u8],
    limit: usize,
) -> Result<T, Malformed> {
    weigh(body, limit)?;
    decode(body)
}

/// Walks through one value without decoding it. Answers what it would take in memory.
///
/// # Errors
///
/// When `body` is not exactly one value, or one that would take more than `limit` bytes.
pub fn weigh(body: &[u8], limit: usize) -> Result<usize, Malformed> {
    let mut rest = body;
    let mut weight = 0usize;
    // How many values are still to come, innermost last.
    let mut open = vec![1u64];
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let (payload, children) = head(&mut rest)?;
        rest = rest.get(payload..).ok_or(Malformed::Length)?;
        weight = weight.saturating_add(VALUE_COST).saturating_add(payload);
        if weight > limit {
            return Err(Malformed::Weight);
        }
        if children > 0 {
            if open.len() > DEPTH {
                return Err(Malformed::Depth);
            }
            open.push(children);
        }
    }
    if rest.is_empty() { Ok(weight) } else { Err(Malformed::Length) }
}

/// Takes the head of a value: how many bytes of its own follow, and how many values.
fn head(rest: &mut &[u8]) -> Result<(usize, u64), Malformed> {
    let marker = number(rest, 1)?;
    let own = |bytes: u64| usize::try_from(bytes).map_err(|_| Malformed::Length);
    Ok(match marker {
        // Small numbers, nil and booleans are all in the marker.
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (0, 0),
        0x80..=0x8f => (0, (marker & 0x0f) * 2),
        0x90..=0x9f => (0, marker & 0x0f),
        0xa0..=0xbf => (own(marker & 0x1f)?, 0),
        0xc4 | 0xd9 => (own(number(rest, 1)?)?, 0),
        0xc5 | 0xda => (own(number(rest, 2)?)?, 0),
        0xc6 | 0xdb => (own(number(rest, 4)?)?, 0),
        0xcc | 0xd0 => (1, 0),
        0xcd | 0xd1 => (2, 0),
        0xce | 0xd2 | 0xca => (4, 0),
        0xcf | 0xd3 | 0xcb => (8, 0),
        0xdc => (0, number(rest, 2)?),
        0xdd => (0, number(rest, 4)?),
        0xde => (0, number(rest, 2)? * 2),
        0xdf => (0, number(rest, 4)? * 2),
        // 0xc1 is nothing, the others are extensions.
        _ => return Err(Malformed::Type),
    })
}

/// Takes a big-endian number.
fn number(rest: &mut &[u8], bytes: usize) -> Result<u64, Malformed> {
    let (taken, after) = rest.split_at_checked(bytes).ok_or(Malformed::Length)?;
    *rest = after;
    Ok(taken.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLENTY: usize = 64 << 20;

    #[test]
    fn bytes_travel_as_bytes() {
        let data: Vec<u8> = (0..=255).collect();
        let frame = encode(&(Some(data.clone()), vec![data.clone()]));
        assert!(frame.len() < 2 * data.len() + 20, "{}", frame.len());
        let back: (Option<Vec<u8>>, Vec<Vec<u8>>) =
            decode_claimed(&frame[HEAD..], PLENTY).expect("decodes");
        assert_eq!(back, (Some(data.clone()), vec![data]));
    }

    #[test]
    fn what_grows_in_memory_is_refused_before_it_does() {
        // A list of a million empty texts: a megabyte that would become 24.
        let mut body = vec![0xdd, 0, 0x0f, 0x42, 0x40];
        body.extend(vec![0xa0; 1_000_000]);
        assert_eq!(weigh(&body, 16 << 20), Err(Malformed::Weight));
        assert!(weigh(&body, PLENTY).is_ok());
        // A length that nothing stands behind.
        assert_eq!(weigh(&[0xc6, 0xff, 0xff, 0xff, 0xff], PLENTY), Err(Malformed::Length));
        assert_eq!(weigh(&[0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0], PLENTY), Err(Malformed::Length));
        assert_eq!(weigh(&[0x91; 100], PLENTY), Err(Malformed::Depth));
        assert_eq!(weigh(&[0xc0, 0xc0], PLENTY), Err(Malformed::Length));
        assert_eq!(weigh(&[], PLENTY), Err(Malformed::Length));
        assert_eq!(weigh(&[0xd4, 0, 0], PLENTY), Err(Malformed::Type));
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            use crate::protocol::FromChild;
            if let Ok(weight) = weigh(&body, PLENTY) {
                prop_assert!(weight >= VALUE_COST && weight <= body.len() * (VALUE_COST + 1));
            }
            let _ = decode_claimed::<FromChild>(&body, PLENTY);
        }

        #[test]
        fn what_was_encoded_weighs_at_least_what_it_is(
            texts in proptest::collection::vec(".{0,20}", 0..50),
            data in proptest::collection::vec(any::<u8>(), 0..3000),
        ) {
            let frame = encode(&(&texts, &data));
            let length = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]);
            prop_assert_eq!(length as usize, frame.len() - HEAD);
            let weight = weigh(&frame[HEAD..], PLENTY).expect("one value");
            let held: usize = texts.iter().map(|text| text.len() + size_of::<String>()).sum();
            prop_assert!(weight >= held + data.len());
            let back: (Vec<String>, Vec<u8>) = decode(&frame[HEAD..]).expect("decodes");
            prop_assert_eq!(back, (texts, data));
        }
    }
}
