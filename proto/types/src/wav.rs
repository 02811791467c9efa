//! How long a recording may be, before it is decoded.

use crate::MAX_SOUND_SECONDS;

/// Samples as integers, and as floats.
const PLAIN_FORMATS: [u16; 2] = [1, 3];

/// Whole seconds that a recording lasts, at most: of a WAV file with plain samples by what its header says of them, of others
/// as long as any may be.
pub(crate) fn seconds_at_most(file: &[u8]) -> u64 {
    let most = u64::from(MAX_SOUND_SECONDS);
    match bytes_a_second(file) {
        Some(pace) if pace > 0 => (file.len() as u64).div_ceil(pace).min(most),
        _ => most,
    }
}

/// What a second takes in a WAV file; `None`: it is none, is otherwise written, or says it twice.
fn bytes_a_second(file: &[u8]) -> Option<u64> {
    if file.get(..4)? != b"RIFF" || file.get(8..12)? != b"WAVE" {
        return None;
    }
    let (mut at, mut pace) = (12_usize, None);
    loop {
        let length = usize::try_from(u32_at(file, at.checked_add(4)?)?).ok()?;
        let body = at.checked_add(8)?;
        match file.get(at..body - 4)? {
            b"data" => return pace,
            b"fmt " if pace.is_some() => return None,
            b"fmt " => pace = Some(pace_of(file, body)?),
            _ => {}
        }
        // Parts of an odd length are followed by a byte.
        at = body.checked_add(length)?.checked_add(length & 1)?;
    }
}

/// The same of the part that describes the samples.
fn pace_of(file: &[u8], at: usize) -> Option<u64> {
    let (format, channels, bits) = (u16_at(file, at)?, u16_at(file, at + 2)?, u16_at(file, at + 14)?);
    let rate = u32_at(file, at + 4)?;
    PLAIN_FORMATS.contains(&format).then(|| u64::from(rate) * u64::from(channels) * u64::from(bits.div_ceil(8)))
}

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(file.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(file.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A part with its name and length.
    fn part(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut part = name.to_vec();
        part.extend((body.len() as u32).to_le_bytes());
        part.extend(body);
        part.extend(vec![0; body.len() % 2]);
        part
    }

    fn samples(format: u16, channels: u16, rate: u32, bits: u16) -> Vec<u8> {
        let mut body = format.to_le_bytes().to_vec();
        body.extend(channels.to_le_bytes());
        body.extend(rate.to_le_bytes());
        body.extend([0; 6]);
        body.extend(bits.to_le_bytes());
        part(b"fmt ", &body)
    }

    fn wav(parts: &[Vec<u8>]) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVE".to_vec();
        parts.iter().for_each(|part| file.extend(part));
        file
    }

    #[test]
    fn a_plain_wav_says_how_long_it_is_and_others_may_be_as_long_as_any() {
        let sound = part(b"data", &vec![0; 64_000]);
        let most = u64::from(MAX_SOUND_SECONDS);
        for (parts, seconds) in [
            // 64 000 bytes and the header, at 32 000 a second.
            (vec![samples(1, 1, 16_000, 16), sound.clone()], 3),
            (vec![part(b"LIST", b"odd"), samples(3, 2, 8_000, 32), sound.clone()], 2),
            (vec![samples(1, 1, 16_000, 16)], most),
            (vec![sound.clone()], most),
            (vec![samples(1, 0, 16_000, 16), sound.clone()], most),
            (vec![samples(0x55, 1, 16_000, 16), sound.clone()], most),
            // One that says it twice could say two things.
            (vec![samples(1, 8, 192_000, 32), samples(1, 1, 4_000, 8), sound.clone()], most),
            (vec![samples(1, 1, 4_000, 8), part(b"data", &vec![0; 4_000_000])], most),
        ] {
            assert_eq!(seconds_at_most(&wav(&parts)), seconds);
        }
        assert_eq!([b"".as_slice(), b"ID3", b"RIFF\0\0\0\0WAVEdata\xff\xff\xff\xff"].map(seconds_at_most), [most; 3]);
    }
}
