//! Writes pages picked at random, each as likely as any other.
//!
//! The numbers come from xorshift64 with the triple 13, 7, 17 (Marsaglia: "Xorshift RNGs", 2003). A number times the
//! pages of the region, high half of the product, is the page: no division, and no bias that a region could show.

super::program! {
    dirtyrig_guest_random_start .. dirtyrig_guest_random_end,
    [
        "mov r8, [rdi + {pages_written}]",
        "mov r9, [rdi + {passes}]",
        "xor ebx, ebx",
        "jmp 3f",
        "2: pause",
        "3: mov rsi, [rdi + {region_pages}]",
        "test rsi, rsi",
        "jz 2b",
        "mov r11, [rdi + {region_gpa}]",
        "mov rcx, rsi",
        // The sequence starts once, with the first pass, and then runs on from pass to pass.
        "test rbx, rbx",
        "jnz 4f",
        "mov rbx, [rdi + {seed}]",
        ".balign 16, 0x90",
        "4:",
        super::draw!(),
        "mov rax, rbx",
        "mul rsi",
        "shl rdx, {page_shift}",
        "mov rax, [rdi + {iteration}]",
        "mov [r11 + rdx], rax",
        "inc r8",
        "mov [rdi + {pages_written}], r8",
        "dec rcx",
        "jnz 4b",
        "inc r9",
        "mov [rdi + {passes}], r9",
        "jmp 3b",
    ],
    block: [pages_written, passes, region_pages, region_gpa, seed, iteration],
    page_shift = crate::PAGE_SIZE.trailing_zeros(),
}
