//! Writes one page after the other, with a pause every so many.
//!
//! A pause lasts its length from the burst's last write on, whatever that burst took: stalls lengthen the whole.
//! Pages are asked for ahead, as in `sequential`.

super::program! {
    dirtyrig_guest_burst_start .. dirtyrig_guest_burst_end,
    [
        "mov r8, [rdi + {pages_written}]",
        "mov r9, [rdi + {passes}]",
        "mov rbx, [rdi + {burst_pages}]",
        "jmp 3f",
        "2: pause",
        "3: mov rcx, [rdi + {region_pages}]",
        "test rcx, rcx",
        "jz 2b",
        "mov rsi, [rdi + {region_gpa}]",
        // The first burst's length, should it have been set after the program had begun to wait.
        "test rbx, rbx",
        "jnz 4f",
        "mov rbx, [rdi + {burst_pages}]",
        ".balign 16, 0x90",
        "4: mov rdx, [rdi + {iteration}]",
        "prefetcht0 [rsi + 4 * {page}]",
        "mov [rsi], rdx",
        "inc r8",
        "mov [rdi + {pages_written}], r8",
        "dec rbx",
        "jz 6f",
        "5: add rsi, {page}",
        "dec rcx",
        "jnz 4b",
        "inc r9",
        "mov [rdi + {passes}], r9",
        "jmp 3b",
        // Pause until the TSC has gone on by its length; R11 is when it began.
        "6: rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "mov r11, rax",
        "mov r12, [rdi + {pause_ticks}]",
        "7: pause",
        "rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "sub rax, r11",
        "cmp rax, r12",
        "jb 7b",
        "mov rbx, [rdi + {burst_pages}]",
        "jmp 5b",
    ],
    block: [pages_written, passes, region_pages, region_gpa, burst_pages, pause_ticks, iteration],
    page = crate::PAGE_SIZE,
}
