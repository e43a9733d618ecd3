//! Many cells, one recording.
