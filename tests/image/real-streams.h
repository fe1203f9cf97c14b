/* SPDX-License-Identifier: MIT */
/* tests/data/streams: what is known of each, for struct real. */
{ "pc-xbzrle", "pc-i440fx-7.2", "pc.ram", UINT64_C(0x81a25f320b803dc5), 1, 0, 0, 1, 30 },
{ "pc-compress", "pc-i440fx-7.2", "pc.ram", UINT64_C(0x5ebfc08700ae668d), 1, 0, 0, 0, 30 },
{ "q35-kvm-4", "pc-q35-7.2", "pc.ram", UINT64_C(0xde0de84e256e9ec4), 1, 0, 0, 0, 40 },
{ "pc-multifd", "pc-i440fx-7.2", "pc.ram", 0, 1, 0, 0, 0, 32 },
{ "pc-shared-uuid", "pc-i440fx-7.2", "m", 0, 1, 1, 1, 0, 30 },
{ "pc-2.3", "", "pc.ram", UINT64_C(0xb1aa1a0bd6db3305), 0, 0, 0, 0, 27 },
{ "pc-icount", "pc-i440fx-7.2", "pc.ram", UINT64_C(0x058828c73949da15), 1, 0, 0, 0, 30 },
