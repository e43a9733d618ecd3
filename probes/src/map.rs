//! Typed access to the maps of an object.

use std::io;

use aya::{
    Ebpf, Pod,
    maps::{HashMap, Map, MapData, MapError},
};
use dirtyrig_probes_common as common;

use crate::Error;

/// A record of `common` as aya reads and writes it: bytes.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Raw<T: Copy + 'static>(pub(crate) T);

/// Marks the records that are plain bytes.
///
/// # Safety
/// No padding, and every bit pattern is a value.
pub(crate) unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($record:ty),* $(,)?) => {$(
        // SAFETY: `repr(C)`, integers alone, without padding: `common` asserts its size to be the sum of its members.
        unsafe impl Plain for $record {}
    )*};
}

plain!(
    common::Config,
    common::Thread,
    common::Pushed,
    common::Last,
    common::Ring,
    common::ExitKey,
    common::HistogramKey,
    common::Histogram,
    common::StallRecord,
    common::PushRecord,
    common::QuotaConfig,
    common::Limited,
);

// SAFETY: transparent over a `Plain` record.
unsafe impl<T: Plain> Pod for Raw<T> {}

impl<T: Plain> Raw<T> {
    /// The record that `bytes` hold; `None` if they are not one.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<T> {
        (bytes.len() == size_of::<T>()).then(|| {
            // SAFETY: as many bytes as the record has, any of which are a value; unaligned is allowed for.
            unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
        })
    }
}

/// Names what was done with which map when it failed.
pub(crate) fn failed(name: &'static str, operation: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map {
        name,
        operation,
        source: source.into(),
    }
}

/// Takes the map `name` out of its object.
pub(crate) fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, Error>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf
        .take_map(name)
        .expect("the embedded object has every map that is taken, once each");
    M::try_from(map).map_err(|source| Error::Map {
        name,
        operation: "open",
        source: source.into(),
    })
}

/// Every entry of a hash map; those that go while it is read are left out.
pub(crate) fn entries<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>, name: &'static str) -> Result<Vec<(K, V)>, Error> {
    let mut found = Vec::new();
    for key in map.keys() {
        let key = key.map_err(|source| Error::Map {
            name,
            operation: "iterate",
            source: source.into(),
        })?;
        if let Some(value) = get(map, &key, name)? {
            found.push((key, value));
        }
    }
    Ok(found)
}

/// The value at `key`, if there is one.
pub(crate) fn get<K: Pod, V: Pod>(
    map: &HashMap<MapData, K, V>,
    key: &K,
    name: &'static str,
) -> Result<Option<V>, Error> {
    match map.get(key, 0) {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(source) => Err(Error::Map {
            name,
            operation: "read",
            source: source.into(),
        }),
    }
}

/// Removes `key`, if it is there.
pub(crate) fn remove<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    key: &K,
    name: &'static str,
) -> Result<(), Error> {
    match map.remove(key) {
        Ok(()) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Map {
            name,
            operation: "remove from",
            source: source.into(),
        }),
    }
}
