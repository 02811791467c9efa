//! Sound out of a file that somebody sent.
//!
//! The bytes are read by parsers that are given nothing else; what they make is bounded while it is made, since a few bytes
//! can claim hours. What a header says of the length is read apart, for what is reserved: a file that turns out to be longer is
//! refused, so that two ways to read it cannot differ. Channels are mixed into one.

use std::io::Cursor;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;

use super::mel::SAMPLE_RATE;
use super::resample::resampled;
use crate::error::InferError;

/// Largest file, in bytes.
pub const MAX_AUDIO_BYTES: usize = provost_types::MAX_SOUND_BYTES;
/// Longest recording, in seconds.
pub const MAX_AUDIO_SECONDS: u32 = provost_types::MAX_SOUND_SECONDS;
/// Sample rates that are read.
const RATES: RangeInclusive<u32> = 4_000..=192_000;
/// Most channels of a recording.
const MAX_CHANNELS: usize = 8;
/// Packets that may be damaged: what they held is left out.
const MAX_DAMAGED: usize = 16;

/// Samples of one recording while they are read.
struct Reading {
    mono: Vec<f32>,
    rate: u32,
    channels: usize,
    /// Longest that it may be; what was reserved for it.
    most_seconds: u64,
}

/// The samples of a WAV, FLAC, MP3 or Ogg Vorbis file as one channel at [`SAMPLE_RATE`].
///
/// # Errors
/// [`InferError::Request`] when it is none of these, is damaged, or is larger or longer than is read.
pub(crate) fn samples(file: Arc<[u8]>) -> Result<Vec<f32>, InferError> {
    if file.is_empty() || file.len() > MAX_AUDIO_BYTES {
        return Err(refused(format!("the file has {} bytes, must have 1 to {MAX_AUDIO_BYTES}", file.len())));
    }
    // A file may be damaged in a way that its parser has not thought of.
    let read = catch_unwind(AssertUnwindSafe(|| read(file)))
        .unwrap_or_else(|_| Err(refused("the file is damaged".to_owned())))?;
    if read.mono.is_empty() {
        return Err(refused("the file has no sound".to_owned()));
    }
    Ok(resampled(read.mono, read.rate))
}

fn refused(cause: String) -> InferError {
    InferError::Request(format!("audio: {cause}; WAV, FLAC, MP3 and Ogg Vorbis are read"))
}

fn damaged(cause: &Error) -> InferError {
    match cause {
        Error::Unsupported(_) => refused("the file is of a format that is not read".to_owned()),
        Error::IoError(_) => refused("the file ends too early, or is of a format that is not read".to_owned()),
        other => refused(format!("the file cannot be read: {other}")),
    }
}

fn read(file: Arc<[u8]>) -> Result<Reading, InferError> {
    let most_seconds = provost_types::sound_seconds_at_most(&file);
    let stream = MediaSourceStream::new(Box::new(Cursor::new(file)), MediaSourceStreamOptions::default());
    let mut format = symphonia::default::get_probe()
        .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
        .map_err(|cause| damaged(&cause))?;
    let track = format.default_track(TrackType::Audio).ok_or_else(|| refused("the file has no sound".to_owned()))?;
    let params = track.codec_params.as_ref().and_then(|params| params.audio());
    let params = params.ok_or_else(|| refused("the file does not say how its sound is written".to_owned()))?;
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(params, &AudioDecoderOptions::default())
        .map_err(|cause| damaged(&cause))?;
    let track_id = track.id;
    let mut reading = Reading { mono: Vec::new(), rate: 0, channels: 0, most_seconds };
    let (mut buffer, mut skipped) = (Vec::<f32>::new(), 0);
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            // A file that was cut off is read as far as it goes.
            Err(Error::IoError(_)) if !reading.mono.is_empty() => break,
            Err(cause) => return Err(damaged(&cause)),
        };
        if packet.track_id != track_id {
            continue;
        }
        match decoder.decode(&packet) {
            Ok(sound) => {
                reading.check(sound.spec().rate(), sound.spec().channels().count())?;
                sound.copy_to_vec_interleaved(&mut buffer);
                reading.take(&buffer)?;
            }
            Err(Error::DecodeError(_)) if skipped < MAX_DAMAGED => skipped += 1,
            Err(cause) => return Err(damaged(&cause)),
        }
    }
    Ok(reading)
}

impl Reading {
    /// Rate and channels are in their bounds, and stay what they were.
    fn check(&mut self, rate: u32, channels: usize) -> Result<(), InferError> {
        if !RATES.contains(&rate) {
            return Err(refused(format!(
                "it has {rate} samples a second, must have {} to {}",
                RATES.start(),
                RATES.end()
            )));
        }
        if channels == 0 || channels > MAX_CHANNELS {
            return Err(refused(format!("it has {channels} channels, must have 1 to {MAX_CHANNELS}")));
        }
        if self.rate != 0 && (self.rate, self.channels) != (rate, channels) {
            return Err(refused("its sample rate or channels change within the file".to_owned()));
        }
        (self.rate, self.channels) = (rate, channels);
        Ok(())
    }

    /// Mixes what was decoded, of all channels in turn.
    fn take(&mut self, interleaved: &[f32]) -> Result<(), InferError> {
        let most_seconds = self.most_seconds.min(u64::from(MAX_AUDIO_SECONDS));
        let most = self.rate as usize * most_seconds as usize;
        if self.mono.len() + interleaved.len() / self.channels > most {
            return Err(self.too_long());
        }
        let part = 1.0 / self.channels as f32;
        let frames = interleaved.chunks_exact(self.channels);
        // A float may be no number, or far louder than full: neither may reach the rest.
        let mixed = frames.map(|frame| frame.iter().sum::<f32>() * part);
        self.mono.extend(mixed.map(|sample| if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 }));
        Ok(())
    }

    fn too_long(&self) -> InferError {
        if self.most_seconds < u64::from(MAX_AUDIO_SECONDS) {
            let seconds = self.most_seconds;
            return refused(format!("its header stands for at most {seconds} seconds, and there are more in it"));
        }
        refused(format!("it is longer than {MAX_AUDIO_SECONDS} seconds; send it in parts"))
    }
}

/// Seconds of so many samples.
pub(crate) fn seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(SAMPLE_RATE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A WAV of 16-bit samples; `claims` is the length that its header gives the sound.
    fn wav(rate: u32, channels: u16, samples: &[i16], claims: u32) -> Arc<[u8]> {
        let mut file = b"RIFF".to_vec();
        file.extend((36 + claims).to_le_bytes());
        file.extend(b"WAVEfmt \x10\0\0\0\x01\0");
        file.extend(channels.to_le_bytes());
        file.extend(rate.to_le_bytes());
        file.extend((rate * u32::from(channels) * 2).to_le_bytes());
        file.extend((channels * 2).to_le_bytes());
        file.extend(b"\x10\0data");
        file.extend(claims.to_le_bytes());
        samples.iter().for_each(|sample| file.extend(sample.to_le_bytes()));
        file.into()
    }

    fn refusal(file: Arc<[u8]>) -> String {
        samples(file).unwrap_err().to_string()
    }

    #[test]
    fn samples_are_read_as_they_are_and_channels_mixed() {
        let mono = samples(wav(16_000, 1, &[0, 16_384, -32_768], 6)).unwrap();
        assert_eq!(mono, [0.0, 0.5, -1.0]);
        let stereo = samples(wav(16_000, 2, &[16_384, 0, -16_384, 16_384], 8)).unwrap();
        assert_eq!(stereo, [0.25, 0.0]);
        let half = samples(wav(8_000, 1, &[0; 80], 160)).unwrap();
        assert_eq!(half.len(), 160);
    }

    #[test]
    fn what_is_no_recording_is_refused_by_its_cause() {
        assert!(refusal(Vec::<u8>::new().into()).contains("0 bytes"));
        assert!(refusal(vec![0_u8; MAX_AUDIO_BYTES + 1].into()).contains("must have 1 to"));
        for file in [b"not a sound at all, but a text".as_slice(), &[0xff; 4_096], b"RIFF\x04\0\0\0WAVE"] {
            assert!(refusal(file.into()).contains("PV-INFERENCE-REQUEST: audio: "), "{file:?}");
        }
        assert!(refusal(wav(1_000, 1, &[0; 100], 200)).contains("samples a second"));
    }

    #[test]
    fn a_recording_that_is_too_long_is_not_read_to_its_end() {
        let seconds = usize::try_from(MAX_AUDIO_SECONDS).unwrap() + 1;
        let samples = vec![0_i16; 4_000 * seconds];
        assert!(refusal(wav(4_000, 1, &samples, u32::try_from(samples.len() * 2).unwrap())).contains("600 seconds"));
    }

    /// What describes 16-bit or wider samples in a WAV.
    fn described(channels: u16, rate: u32, bits: u16) -> Vec<u8> {
        let bytes = channels * (bits / 8);
        let mut part = b"fmt \x10\0\0\0\x01\0".to_vec();
        part.extend(channels.to_le_bytes());
        part.extend(rate.to_le_bytes());
        part.extend((rate * u32::from(bytes)).to_le_bytes());
        part.extend(bytes.to_le_bytes());
        part.extend(bits.to_le_bytes());
        part
    }

    #[test]
    fn a_recording_is_no_longer_than_what_was_reserved_for_it() {
        // After a list of an odd length the decoder leaves out one byte more: the X, with which begins what others read as a
        // part of 0x1020 bytes.
        let mut file = b"RIFF\xff\xff\xff\xffWAVELIST\x05\0\0\0abcde\0X".to_vec();
        let others = file.len() - 1 + 8 + 0x1020;
        file.extend(described(1, 4_000, 16));
        file.extend(b"data\x50\xc3\0\0");
        file.resize(others, 0);
        file.extend(described(8, 192_000, 32));
        file.extend(b"data\x50\xc3\0\0");
        file.resize(60_000, 0);
        assert_eq!(provost_types::sound_seconds_at_most(&file), 1);
        let refused = refusal(file.into());
        assert!(refused.contains("stands for at most 1 seconds"), "{refused}");
    }
}
