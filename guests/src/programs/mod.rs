//! The programs' machine code, one file a program.
//!
//! Entered with RDI = address of the vCPU's block, in long mode at CPL 3, and never left. A program uses no stack, no
//! absolute address and nothing outside itself, so a copy of its bytes runs anywhere. What they share:
//!
//! - Counters live in registers (R8 pages written, R9 passes, R10 pages read). They are taken from the block at the start,
//!   so that a vCPU which is started again goes on counting. They are stored to it right after the access they count.
//! - `region_pages` is read first at each pass. While it is 0 the program waits; what it reads afterwards is at least
//!   as new, because loads stay in order.
//! - A write stores `iteration` into the first word of the page.
//! - Padding before a loop is spelt out as NOPs (0x90): in a section of data the assembler would fill with zeros.
//! - Due times are compared by the sign of the difference, so that a TSC that wraps does no harm.

mod burst;
mod hot_cold;
mod mix;
mod paced;
mod phases;
mod random;
mod reader;
mod replay;
mod sequential;

/// The code of each program, in the order of [`crate::Program::NAMES`].
pub(crate) const CODE: [fn() -> &'static [u8]; 9] = [
    sequential::code,
    random::code,
    hot_cold::code,
    burst::code,
    reader::code,
    mix::code,
    paced::code,
    replay::code,
    phases::code,
];

/// Lines that draw the next random number: RBX, never 0, by xorshift64 (Marsaglia 2003, with shifts of 13, 7 and 17). They
/// change RAX.
macro_rules! draw {
    () => {
        "mov rax, rbx
        shl rax, 13
        xor rbx, rax
        mov rax, rbx
        shr rax, 7
        xor rbx, rax
        mov rax, rbx
        shl rax, 17
        xor rbx, rax"
    };
}
use draw;

/// Places the lines of assembly between two symbols in a read-only section, and defines `code()`, the bytes between.
///
/// In the lines, the name of a field under `block` stands for the field's offset; further constants follow by name.
macro_rules! program {
    (
        $start:ident .. $end:ident,
        [$($line:expr),* $(,)?],
        block: [$($field:ident),* $(,)?]
        $(, $operand:ident = $value:expr)* $(,)?
    ) => {
        core::arch::global_asm!(
            concat!(".pushsection .rodata.", stringify!($start), ", \"a\", @progbits"),
            ".balign 64",
            concat!(".globl ", stringify!($start)),
            concat!(".hidden ", stringify!($start)),
            concat!(".globl ", stringify!($end)),
            concat!(".hidden ", stringify!($end)),
            concat!(stringify!($start), ":"),
            $($line,)*
            concat!(stringify!($end), ":"),
            ".popsection",
            $($field = const core::mem::offset_of!($crate::block::VcpuBlock, $field),)*
            $($operand = const $value,)*
        );

        unsafe extern "C" {
            static $start: u8;
            static $end: u8;
        }

        /// The program's bytes.
        pub(super) fn code() -> &'static [u8] {
            let start = &raw const $start;
            let length = (&raw const $end).addr() - start.addr();
            // SAFETY: the two symbols are the bounds of one stretch of a read-only section, laid down above in this
            // order; it holds plain bytes, lives as long as the program and is never written.
            unsafe { core::slice::from_raw_parts(start, length) }
        }
    };
}
use program;
