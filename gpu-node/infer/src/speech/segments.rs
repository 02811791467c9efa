//! Where the pieces of a window's text begin and end, and where the next window begins (OpenAI's `whisper/transcribe.py`).

use super::mel::FRAMES_A_POSITION;
use super::text::SpeechText;

/// A window of a recording, in frames of it.
pub(super) struct Window {
    pub(super) from: usize,
    pub(super) frames: usize,
    /// Its text has timestamps.
    pub(super) timestamps: bool,
}

/// A piece of a window's text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// Frames of the recording.
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) tokens: &'a [u32],
}

/// The pieces of what was written, and by how many frames the next window is behind this one. What was begun and has no end
/// is left to the next window.
pub(super) fn cut<'a>(text: &SpeechText, written: &'a [u32], window: &Window) -> (Vec<Piece<'a>>, usize) {
    let end = window.from + window.frames;
    // Where a timestamp stands in the recording.
    let frame = |token: Option<&u32>| {
        let step = token.and_then(|token| text.step(*token))?;
        Some((window.from + step * FRAMES_A_POSITION).min(end))
    };
    let is_time = |at: usize| text.step(written.get(at).copied().unwrap_or(0)).is_some();
    // Each place between two timestamps: there one piece ends, and the next one begins.
    let seams: Vec<usize> = (1..written.len()).filter(|at| is_time(at - 1) && is_time(*at)).collect();
    let ends_alone = written.len() >= 2 && is_time(written.len() - 1) && !is_time(written.len() - 2);
    if !window.timestamps || seams.is_empty() {
        let last = written.iter().rfind(|token| text.step(**token).is_some_and(|step| step > 0));
        let to = frame(last).unwrap_or(end);
        return (vec![Piece { from: window.from, to, tokens: written }], window.frames);
    }
    let mut pieces = Vec::with_capacity(seams.len() + 1);
    let mut begin = 0;
    for seam in seams.iter().copied().chain(ends_alone.then_some(written.len())) {
        let tokens = written.get(begin..seam).unwrap_or_default();
        let (from, to) = (frame(tokens.first()).unwrap_or(window.from), frame(tokens.last()).unwrap_or(end));
        pieces.push(Piece { from, to: to.max(from), tokens });
        begin = seam;
    }
    if ends_alone {
        // Nothing is said behind it.
        return (pieces, window.frames);
    }
    let until = begin.checked_sub(1).and_then(|at| frame(written.get(at))).unwrap_or(end);
    match until - window.from {
        0 => {
            // It would be heard again and again: what has no end lasts as long as the window.
            pieces.push(Piece { from: until, to: end, tokens: written.get(begin..).unwrap_or_default() });
            (pieces, window.frames)
        }
        moves => (pieces, moves),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speech::text::tiny;

    const T: u32 = 266;

    /// Pieces as frames and text, and the way to the next window, of one of 200 frames that begins at 1000.
    fn cuts(written: &[u32], timestamps: bool) -> (Vec<(usize, usize, usize)>, usize) {
        let window = Window { from: 1_000, frames: 200, timestamps };
        let text = tiny();
        let (pieces, moves) = cut(&text, written, &window);
        let plain = |piece: &Piece<'_>| piece.tokens.iter().filter(|token| text.is_text(**token)).count();
        (pieces.iter().map(|piece| (piece.from, piece.to, plain(piece))).collect(), moves)
    }

    #[test]
    fn pieces_end_where_timestamps_say_and_the_next_window_begins_there() {
        for (written, pieces, moves) in [
            // One piece and its end: all was heard.
            (vec![T, 65, 65, T + 40], vec![(1_000, 1_080, 2)], 200),
            // No end: it lasts as long as the window.
            (vec![T, 65], vec![(1_000, 1_200, 1)], 200),
            (vec![], vec![(1_000, 1_200, 0)], 200),
            // Two pieces and nothing behind.
            (vec![T, 65, T + 10, T + 20, 66, T + 30], vec![(1_000, 1_020, 1), (1_040, 1_060, 1)], 200),
            // The second piece has no end: it is heard again, from where the first one ended.
            (vec![T, 65, T + 10, T + 20, 66, 66], vec![(1_000, 1_020, 1)], 20),
            (vec![T + 5, 65, T + 10, T + 10], vec![(1_010, 1_020, 1)], 20),
        ] {
            assert_eq!(cuts(&written, true), (pieces, moves), "{written:?}");
        }
    }

    #[test]
    fn a_window_always_moves() {
        assert_eq!(cuts(&[T, T, 65], true), (vec![(1_000, 1_000, 0), (1_000, 1_200, 1)], 200));
        assert_eq!(cuts(&[65, 66], false), (vec![(1_000, 1_200, 2)], 200));
    }
}
