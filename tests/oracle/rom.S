/* SPDX-License-Identifier: MIT */
/*
 * The oracle's guest, from the reset vector on. It stands in place of the BIOS, so that
 * every device is found as power-on leaves it.
 */
	.section .text16, "ax"
	.code16
	.global	start16
start16:
	cli
	cld
	lgdtl	%cs:gdt_pointer_in_segment
	mov	$1, %eax
	mov	%eax, %cr0
	ljmpl	$8, $start32

	.section .reset, "ax"
	.code16
	ljmp	$0xf000, $start16_in_segment

	.section .text, "ax"
	.code32
start32:
	mov	$16, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %fs
	mov	%ax, %gs
	mov	%ax, %ss
	mov	$0x9000, %esp
	call	rom_main
1:	cli
	hlt
	jmp	1b

/*
 * Accesses: uint32_t NAME(uint32_t addr, uint32_t value, uint64_t *tsc). Each stands
 * exactly ACCESS_INSNS instructions after the RDTSC that stamps it.
 */
	.macro	access name, insn:vararg
	.global	\name
\name:	push	%ebx
	push	%esi
	push	%edi
	mov	16(%esp), %esi
	mov	20(%esp), %edi
	mov	24(%esp), %ebx
	rdtsc
	mov	%eax, (%ebx)
	mov	%edx, 4(%ebx)
	mov	%esi, %edx
	mov	%edi, %eax
	\insn
	pop	%edi
	pop	%esi
	pop	%ebx
	ret
	.endm

	access	access_out8, out %al, %dx
	access	access_out16, out %ax, %dx
	access	access_out32, out %eax, %dx
	access	access_in8, in %dx, %al
	access	access_in16, in %dx, %ax
	access	access_in32, in %dx, %eax
	access	access_write32, mov %eax, (%edx)
	access	access_read32, mov (%edx), %eax

	.altmacro
	.macro	stub n
stub_\n: push	$\n
	jmp	common
	.endm
	.set	i, 0
	.rept	256
	stub	%i
	.set	i, i + 1
	.endr

common:	pushal
	rdtsc
	push	%edx
	push	%eax
	push	40(%esp)
	call	rom_interrupt
	add	$12, %esp
	popal
	add	$4, %esp
	iretl

	.section .rodata
	.macro	address n
	.long	stub_\n
	.endm
	.global	stubs
	.align	4
stubs:
	.set	i, 0
	.rept	256
	address	%i
	.set	i, i + 1
	.endr

	.align	8
gdt:	.quad	0
	.quad	0x00cf9a000000ffff
	.quad	0x00cf92000000ffff
	.global	gdt_pointer
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt
