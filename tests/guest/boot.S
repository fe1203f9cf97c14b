/* SPDX-License-Identifier: MIT */
/*
 * Entry points of the test guest.
 *
 * Entry contract (README.md says it in full): 32-bit protected mode, paging off, flat
 * code and data segments, interrupts off, EBX = address of a multiboot information block
 * of which only the u32 at +0 (bit 2: a command line is given) and the u32 at +16 (its
 * address) are read. EAX is not looked at, so a VMM need not play a boot loader.
 */
	.section .multiboot, "a"
	.align	4
	.long	0x1badb002			/* magic */
	.long	0				/* flags: load me as the ELF says */
	.long	-0x1badb002

	.section .text
	.global _start
_start:
	cli
	cld
	mov	$boot_stack_end, %esp
	lgdt	gdt_pointer
	ljmp	$8, $1f
1:	mov	$16, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	%ax, %fs
	mov	%ax, %gs
	push	$0
	popf
	mov	$bss_start, %edi
	mov	$bss_end, %ecx
	sub	%edi, %ecx
	xor	%eax, %eax
	rep stosb
	push	%ebx
	call	guest_main
2:	hlt
	jmp	2b

/*
 * The other processors start here in real mode, after being copied to TRAMPOLINE. They
 * take a stack each from one block, in the order in which they arrive.
 */
	.code16
	.global ap_begin, ap_end
ap_begin:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	lgdtl	(ap_gdt_pointer - ap_begin) + 0x8000
	mov	$1, %eax
	mov	%eax, %cr0
	ljmpl	$8, $ap_32
	.align	8
ap_gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt
ap_end:
	.code32
ap_32:
	mov	$16, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	%ax, %fs
	mov	%ax, %gs
	mov	$4096, %eax
	lock xadd %eax, ap_stack_used
	lea	ap_stacks + 4096(%eax), %esp
	call	ap_main
3:	hlt
	jmp	3b

/*
 * Interrupt entry. Each vector pushes its number; exceptions that bring an error code
 * of their own are fatal here, so the frame's shape matters to nobody.
 *
 * Return is by POPF, STI, RET: KVM without hardware support for unpaged code emulates it
 * instruction by instruction, and its emulator knows no IRET in protected mode. Only code
 * with IF set is ever interrupted, so setting it again is always right.
 */
	.macro	entry vector
	.align	16
	push	$\vector
	jmp	enter
	.endm

	.align	16
	.global entries
entries:
	.set	n, 0
	.rept	256
	entry	n
	.set	n, n + 1
	.endr

enter:
	pusha
	cld
	mov	%esp, %eax
	push	%eax				/* the frame */
	push	36(%esp)			/* the vector: above EFLAGS.. of pusha */
	call	interrupt
	add	$8, %esp
	mov	44(%esp), %eax			/* EFLAGS as interrupted, less IF: to below EIP */
	and	$~0x200, %eax
	mov	36(%esp), %ecx			/* EIP */
	mov	%eax, 40(%esp)
	mov	%ecx, 44(%esp)
	popa
	add	$8, %esp
	popf
	sti
	ret					/* in the shadow of STI */

	.section .data
	.align	8
gdt:
	.quad	0
	.quad	0x00cf9a000000ffff		/* 8: code, flat */
	.quad	0x00cf92000000ffff		/* 16: data, flat */
gdt_end:
gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt
	.align	4
ap_stack_used:
	.long	0

	/* Outside .bss proper: the entry code clears that while it stands on this. */
	.section .stacks, "aw", @nobits
	.align	16
	.skip	16384
boot_stack_end:
ap_stacks:
	.skip	4096 * 16
	.section .note.GNU-stack, "", @progbits
