//! Writes one page after the other at a set rate.
//!
//! Each write is due a fixed time after the one before was *due*, so what a write takes doesn't add up. A program that
//! is late writes on without a pause until it has caught up; but it catches up at most `catch_up_ticks`: when it finds
//! itself further behind, the schedule moves up to that far in the past. So a vCPU that was held up for long goes on at
//! its rate, after a burst of no more than that time's pages. One that can't make its rate runs flat out.

super::program! {
    dirtyrig_guest_paced_start .. dirtyrig_guest_paced_end,
    [
        "mov r8, [rdi + {pages_written}]",
        "mov r9, [rdi + {passes}]",
        "xor ebx, ebx",
        "2: rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        // When the next write is due: ticks in R11, and 2^-64 ticks in RBX. The schedule starts when the wait ends.
        "mov r11, rax",
        "mov rcx, [rdi + {region_pages}]",
        "test rcx, rcx",
        "jnz 3f",
        "pause",
        "jmp 2b",
        "3: mov rsi, [rdi + {region_gpa}]",
        "4: rdtsc",
        "shl rdx, 32",
        "or rax, rdx",
        "sub rax, r11",
        "jns 5f",
        "pause",
        "jmp 4b",
        // RAX is how late it is.
        "5: sub rax, [rdi + {catch_up_ticks}]",
        "jbe 6f",
        "add r11, rax",
        "6: mov rdx, [rdi + {iteration}]",
        "mov [rsi], rdx",
        "inc r8",
        "mov [rdi + {pages_written}], r8",
        "add rbx, [rdi + {page_ticks_fraction}]",
        "adc r11, [rdi + {page_ticks}]",
        "add rsi, {page}",
        "dec rcx",
        "jnz 4b",
        "inc r9",
        "mov [rdi + {passes}], r9",
        "mov rcx, [rdi + {region_pages}]",
        "test rcx, rcx",
        "jnz 3b",
        "jmp 2b",
    ],
    block: [
        pages_written, passes, region_pages, region_gpa, catch_up_ticks, page_ticks, page_ticks_fraction, iteration,
    ],
    page = crate::PAGE_SIZE,
}
