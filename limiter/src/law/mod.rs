//! Control laws: pure functions of what was measured. No clock, no thread, no I/O.
