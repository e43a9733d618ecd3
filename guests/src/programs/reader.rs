//! Reads one page after the other and never writes.

super::program! {
    dirtyrig_guest_reader_start .. dirtyrig_guest_reader_end,
    [
        "mov r10, [rdi + {pages_read}]",
        "mov r9, [rdi + {passes}]",
        "jmp 3f",
        "2: pause",
        "3: mov rcx, [rdi + {region_pages}]",
        "test rcx, rcx",
        "jz 2b",
        "mov rax, [rdi + {region_gpa}]",
        ".balign 16, 0x90",
        "4: mov rdx, [rax]",
        "inc r10",
        "mov [rdi + {pages_read}], r10",
        "add rax, {page}",
        "dec rcx",
        "jnz 4b",
        "inc r9",
        "mov [rdi + {passes}], r9",
        "jmp 3b",
    ],
    block: [pages_read, passes, region_pages, region_gpa],
    page = crate::PAGE_SIZE,
}
