//! The way from a PVH entry to the programs: 32-bit protected mode, long mode, CPL 3; the other vCPUs from real mode.
//!
//! Unlike the programs this code knows where it lies: it is assembled for [`BASE`], and what it needs of itself it
//! addresses as `BASE` plus the distance from its start, which the assembler works out.
//!
//! 1. The first vCPU arrives at the first byte, in flat 32-bit protected mode without paging (PVH). It copies the
//!    trampoline below 1 MiB, goes to long mode, and sends INIT and SIPI to all others at once.
//! 2. Those start in the trampoline, in real mode, all at the same time; so nothing here needs a stack before each
//!    vCPU has its own, and nothing but the copying writes to memory.
//! 3. Each takes its number from its local APIC, finds its program in the table, and enters it at CPL 3. One whose
//!    number the table doesn't have halts for good.

use core::mem::size_of;

/// Where the code is loaded, and entered.
pub(super) const BASE: u64 = 0x10_0000;

/// The table: how many vCPUs there are, then the address of each one's program, all `u64`.
pub(super) const TABLE: u64 = BASE + 0x1000;

/// Where the trampoline is copied to: a page below 1 MiB, whose number is the SIPI's vector.
const TRAMPOLINE: u64 = 0x8000;

core::arch::global_asm!(
    ".pushsection .rodata.dirtyrig_guest_boot, \"a\", @progbits",
    ".balign 16",
    ".globl dirtyrig_guest_boot_start",
    ".hidden dirtyrig_guest_boot_start",
    ".globl dirtyrig_guest_boot_end",
    ".hidden dirtyrig_guest_boot_end",
    "dirtyrig_guest_boot_start:",
    ".code32",
    "cli",
    "cld",
    "movl $({base} + 20f - dirtyrig_guest_boot_start), %esi",
    "movl ${trampoline}, %edi",
    "movl $(22f - 20f), %ecx",
    "rep movsb",
    // EBP tells the first vCPU from the others.
    "movl $1, %ebp",
    // Every vCPU from here on. PAE, OSFXSR, OSXMMEXCPT; the page tables; long mode; protection and paging.
    "10: movl $0x620, %eax",
    "movl %eax, %cr4",
    "movl ${page_tables}, %eax",
    "movl %eax, %cr3",
    "movl $0xc0000080, %ecx",
    "rdmsr",
    "orl $0x100, %eax",
    "wrmsr",
    "movl $0x80050033, %eax",
    "movl %eax, %cr0",
    "lgdtl {base} + 31f - dirtyrig_guest_boot_start",
    "ljmpl $0x08, $({base} + 11f - dirtyrig_guest_boot_start)",
    ".code64",
    "11: movl $0x10, %eax",
    "movl %eax, %ds",
    "movl %eax, %es",
    "movl %eax, %ss",
    // Its number: the ID register of the local APIC, in its default place.
    "movl $0xfee00000, %esi",
    "movl 0x20(%rsi), %ebx",
    "shrl $24, %ebx",
    "movl ${table}, %edx",
    "testl %ebp, %ebp",
    "jz 13f",
    // Enable the APIC; INIT, then SIPI, to all but itself. Between the two the others need a moment.
    "movl $0x1ff, 0xf0(%rsi)",
    "movl $0xc4500, 0x300(%rsi)",
    "movl $20000, %ecx",
    "12: pause",
    "decl %ecx",
    "jnz 12b",
    "movl $(0xc4600 | ({trampoline} >> 12)), 0x300(%rsi)",
    "13: cmpq (%rdx), %rbx",
    "jae 14f",
    "movq 8(%rdx, %rbx, 8), %rcx",
    "movl %ebx, %edi",
    "shll $12, %edi",
    "leal {stacks} + {page}(%rdi), %esp",
    "addl ${blocks}, %edi",
    "movq %rsp, %rax",
    "pushq $0x23",
    "pushq %rax",
    "pushq $0x2",
    "pushq $0x1b",
    "pushq %rcx",
    "iretq",
    "14: hlt",
    "jmp 14b",
    // The trampoline, which runs at its copy. The GDT it loads is the one up here.
    ".code16",
    "20: cli",
    "xorw %ax, %ax",
    "movw %ax, %ds",
    "lgdtl {trampoline} + 23f - 20b",
    "movl $0x11, %eax",
    "movl %eax, %cr0",
    "ljmpl $0x28, $({trampoline} + 21f - 20b)",
    ".code32",
    "21: movl $0x10, %eax",
    "movl %eax, %ds",
    "movl %eax, %es",
    "movl %eax, %ss",
    "xorl %ebp, %ebp",
    "movl $({base} + 10b - dirtyrig_guest_boot_start), %eax",
    "jmp *%eax",
    "23: .word 33f - 32f - 1",
    ".long {base} + 32f - dirtyrig_guest_boot_start",
    "22:",
    // The same for the first vCPU.
    "31: .word 33f - 32f - 1",
    ".long {base} + 32f - dirtyrig_guest_boot_start",
    ".balign 8, 0",
    "32: .quad 0",
    ".quad 0x00af9b000000ffff", // 08: code, 64 bits
    ".quad 0x00cf93000000ffff", // 10: data
    ".quad 0x00affb000000ffff", // 18: code, 64 bits, CPL 3
    ".quad 0x00cff3000000ffff", // 20: data, CPL 3
    ".quad 0x00cf9b000000ffff", // 28: code, 32 bits
    "33:",
    "dirtyrig_guest_boot_end:",
    ".code64",
    ".popsection",
    base = const BASE,
    table = const TABLE,
    trampoline = const TRAMPOLINE,
    page_tables = const crate::image::PAGE_TABLES,
    stacks = const crate::image::STACKS,
    blocks = const crate::image::BLOCKS,
    page = const size_of::<crate::VcpuBlock>(),
    options(att_syntax),
);

unsafe extern "C" {
    static dirtyrig_guest_boot_start: u8;
    static dirtyrig_guest_boot_end: u8;
}

/// The code's bytes.
pub(super) fn code() -> &'static [u8] {
    let start = &raw const dirtyrig_guest_boot_start;
    let length = (&raw const dirtyrig_guest_boot_end).addr() - start.addr();
    // SAFETY: the two symbols are the bounds of one stretch of a read-only section, laid down above in this order; it
    // holds plain bytes, lives as long as the program and is never written.
    unsafe { core::slice::from_raw_parts(start, length) }
}
