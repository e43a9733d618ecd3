//! Writes pages picked at random, the first ones of the region more often.
//!
//! One number of the sequence (see `random`) decides both: its low half whether the write is hot, its high half, as the
//! top of a product, which page of its kind.

super::program! {
    dirtyrig_guest_hot_cold_start .. dirtyrig_guest_hot_cold_end,
    [
        "mov r8, [rdi + {pages_written}]",
        "mov r9, [rdi + {passes}]",
        "xor ebx, ebx",
        "jmp 3f",
        "2: pause",
        "3: mov rcx, [rdi + {region_pages}]",
        "test rcx, rcx",
        "jz 2b",
        "mov r11, [rdi + {region_gpa}]",
        // Hot pages in R12, cold ones in R13, the first cold address in R14, the share in R15.
        "mov r12, [rdi + {hot_pages}]",
        "mov r13, rcx",
        "sub r13, r12",
        "mov r14, r12",
        "shl r14, {page_shift}",
        "add r14, r11",
        "mov r15, [rdi + {hot_share}]",
        "test rbx, rbx",
        "jnz 4f",
        "mov rbx, [rdi + {seed}]",
        ".balign 16, 0x90",
        "4:",
        super::draw!(),
        // No branch: which way it goes is random, and each miss would cost more than both ways together.
        "mov eax, ebx",
        "mov rsi, r13",
        "mov rbp, r14",
        "cmp rax, r15",
        "cmovb rsi, r12",
        "cmovb rbp, r11",
        "mov rax, rbx",
        "mul rsi",
        "shl rdx, {page_shift}",
        "mov rax, [rdi + {iteration}]",
        "mov [rbp + rdx], rax",
        "inc r8",
        "mov [rdi + {pages_written}], r8",
        "dec rcx",
        "jnz 4b",
        "inc r9",
        "mov [rdi + {passes}], r9",
        "jmp 3b",
    ],
    block: [pages_written, passes, region_pages, region_gpa, hot_pages, hot_share, seed, iteration],
    page_shift = crate::PAGE_SIZE.trailing_zeros(),
}
