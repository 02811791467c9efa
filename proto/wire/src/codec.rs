//! How the generated clients and servers write and read messages: as tonic does, in smaller buffers.
//!
//! tonic's own codec makes a buffer of 8 KiB for each direction of each call, of which most calls use some hundred
//! bytes. A buffer grows where a message is larger.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Bytes of a buffer at first.
const BUFFER_BYTES: usize = 1 << 10;
/// Messages of a stream that wait together go out together up to so many bytes; as tonic has it.
const YIELD_BYTES: usize = 32 << 10;

/// Messages in prost's form.
#[derive(Debug, Clone)]
pub(crate) struct SmallCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

impl<T, U> Codec for SmallCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(settings())
    }
}
