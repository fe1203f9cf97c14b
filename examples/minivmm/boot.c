/* SPDX-License-Identifier: MIT */
/* The machine at power-on: memory, vCPUs, and a guest that is about to begin. */
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "minivmm.h"

#define INFO_ADDRESS 0x500		/* what the guest finds in EBX */
#define COMMAND_LINE_ADDRESS 0x600

/* ISA interrupts reach both the 8259s and the IOAPIC; IRQ 0 is the IOAPIC's pin 2. */
static void route_interrupts(struct vm *vm)
{
	union {
		struct kvm_irq_routing head;
		uint8_t room[sizeof(struct kvm_irq_routing) +
			     (16 + 24) * sizeof(struct kvm_irq_routing_entry)];
	} table = { .room = { 0 } };

	for (uint32_t gsi = 0; gsi < 24; gsi++) {
		if (gsi == 2) {
			continue;
		}
		if (gsi < 16) {
			table.head.entries[table.head.nr++] = (struct kvm_irq_routing_entry){
				.gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP,
				.u.irqchip = { gsi < 8 ? KVM_IRQCHIP_PIC_MASTER :
							 KVM_IRQCHIP_PIC_SLAVE, gsi % 8 },
			};
		}
		table.head.entries[table.head.nr++] = (struct kvm_irq_routing_entry){
			.gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = { KVM_IRQCHIP_IOAPIC, gsi == 0 ? 2 : gsi },
		};
	}
	must(vm->fd, KVM_SET_GSI_ROUTING, &table, "KVM_SET_GSI_ROUTING");
}

/* By which the library sees the guest's clock pages. */
static int access_memory(void *context, uint64_t gpa, void *bytes, uint32_t size, int write)
{
	struct vm *vm = context;

	if (gpa > vm->ram_bytes || size > vm->ram_bytes - gpa) {
		return -1;
	}
	memcpy(write ? vm->ram + gpa : bytes, write ? bytes : vm->ram + gpa, size);
	return 0;
}

/* What the library is told of this VM. The descriptors stay ours. */
static void introduce(struct vm *vm)
{
	vm->clocks.vm = vm->fd;
	vm->clocks.irqchip = 1;
	vm->clocks.pit = 1;
	vm->clocks.rtc = &vm->rtc;
	vm->clocks.hpet = &vm->hpet;
	vm->clocks.pm_timer = &vm->pm;
	vm->clocks.stops = vm->stops;
	vm->clocks.memory = access_memory;
	vm->clocks.memory_context = vm;
}

void vm_create(struct vm *vm, uint64_t ram_bytes)
{
	struct kvm_userspace_memory_region region = { .memory_size = ram_bytes };
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };	/* port 0x61 too */
	uint64_t identity_map = 0xfffbc000;

	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0) {
		die("/dev/kvm: %m");
	}
	vm->fd = must(vm->kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
	vm->ram_bytes = ram_bytes;
	vm->ram = mmap(NULL, ram_bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (vm->ram == MAP_FAILED) {
		die("%zu bytes of guest memory: %m", vm->ram_bytes);
	}
	region.userspace_addr = (uintptr_t)vm->ram;
	must(vm->fd, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
	must(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map, "KVM_SET_IDENTITY_MAP_ADDR");
	must(vm->fd, KVM_SET_TSS_ADDR, (void *)(identity_map + 0x1000), "KVM_SET_TSS_ADDR");
	must(vm->fd, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP");
	must(vm->fd, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2");
	route_interrupts(vm);
	introduce(vm);
}

/* What the kernel offers; each processor has its own number, and the deadline timer. */
static void offer_cpuid(struct vm *vm, struct vcpu *vcpu)
{
	union cpuid cpuid = { .room = { 0 } };

	cpuid.head.nent = CPUID_MAX;
	must(vm->kvm, KVM_GET_SUPPORTED_CPUID, &cpuid, "KVM_GET_SUPPORTED_CPUID");
	for (uint32_t i = 0; i < cpuid.head.nent; i++) {
		struct kvm_cpuid_entry2 *entry = &cpuid.head.entries[i];

		if (entry->function == 1) {
			entry->ebx = (entry->ebx & 0xffffff) | vcpu->index << 24;
			if (ioctl(vm->kvm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0) {
				entry->ecx |= 1u << 24;
			}
		} else if (entry->function == 0xb || entry->function == 0x1f) {
			entry->edx = vcpu->index;
		}
	}
	must(vcpu->fd, KVM_SET_CPUID2, &cpuid, "KVM_SET_CPUID2");
}

void vm_create_vcpus(struct vm *vm, unsigned n)
{
	int run_bytes = must(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE");

	for (vm->n_vcpus = 0; vm->n_vcpus < n; vm->n_vcpus++) {
		struct vcpu *vcpu = &vm->vcpus[vm->n_vcpus];

		vcpu->vm = vm;
		vcpu->index = vm->n_vcpus;
		vcpu->fd = must(vm->fd, KVM_CREATE_VCPU, (void *)(uintptr_t)vcpu->index,
				"KVM_CREATE_VCPU");
		vcpu->run = mmap(NULL, (size_t)run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
				 vcpu->fd, 0);
		if (vcpu->run == MAP_FAILED) {
			die("the run area of vCPU %u: %m", vcpu->index);
		}
		vm->vcpu_fds[vcpu->index] = vcpu->fd;
	}
	vm->clocks.vcpus = vm->vcpu_fds;
	vm->clocks.n_vcpus = n;
}

/* Guest memory, or the end: a guest that lies outside its RAM cannot be started. */
static void *at(struct vm *vm, uint64_t address, uint64_t bytes)
{
	if (address > vm->ram_bytes || bytes > vm->ram_bytes - address) {
		die("the guest needs memory at 0x%llx, and has %zu bytes",
		    (unsigned long long)(address + bytes), vm->ram_bytes);
	}
	return vm->ram + address;
}

static uint32_t load_elf(struct vm *vm, const char *path)
{
	FILE *file = fopen(path, "rbe");
	Elf32_Ehdr head;
	Elf32_Phdr part;

	if (!file) {
		die("%s: %m", path);
	}
	if (fread(&head, sizeof(head), 1, file) != 1 ||
	    memcmp(head.e_ident, ELFMAG, SELFMAG) || head.e_machine != EM_386) {
		die("%s is no 32-bit ELF for x86", path);
	}
	for (unsigned i = 0; i < head.e_phnum; i++) {
		if (fseek(file, (long)(head.e_phoff + i * sizeof(part)), SEEK_SET) ||
		    fread(&part, sizeof(part), 1, file) != 1 ||
		    fseek(file, (long)part.p_offset, SEEK_SET)) {
			die("%s: %s", path, "a program header is missing");
		}
		if (part.p_type == PT_LOAD && part.p_filesz <= part.p_memsz) {
			uint8_t *to = at(vm, part.p_paddr, part.p_memsz);

			if (part.p_filesz && fread(to, part.p_filesz, 1, file) != 1) {
				die("%s ends too early", path);
			}
		}
	}
	fclose(file);
	return head.e_entry;
}

/* 32-bit protected mode, paging off, flat segments. */
static void set_flat(struct vcpu *vcpu, uint32_t entry)
{
	struct kvm_regs regs = { .rip = entry, .rbx = INFO_ADDRESS, .rflags = 2 };
	struct kvm_segment code = { .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1,
				    .db = 1, .s = 1, .g = 1 };
	struct kvm_segment data = code;
	struct kvm_sregs sregs;

	data.selector = 16;
	data.type = 3;
	must(vcpu->fd, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr0 |= 1;			/* protected mode */
	must(vcpu->fd, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
	must(vcpu->fd, KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

void vm_boot(struct vm *vm, const char *path, const char *command_line)
{
	uint32_t info[5] = { 1u << 2, 0, 0, 0, COMMAND_LINE_ADDRESS };
	uint32_t entry = load_elf(vm, path);

	for (unsigned i = 0; i < vm->n_vcpus; i++) {
		offer_cpuid(vm, &vm->vcpus[i]);
	}
	memcpy(at(vm, INFO_ADDRESS, sizeof(info)), info, sizeof(info));
	strncpy(at(vm, COMMAND_LINE_ADDRESS, COMMAND_LINE_MAX), command_line, COMMAND_LINE_MAX - 1);
	set_flat(&vm->vcpus[0], entry);
}
