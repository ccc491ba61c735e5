package cri

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"runtime"
)

// The init of a sandbox with shareProcessNamespace is a program of 88 bytes of
// code: it ignores SIGCHLD, by which the kernel reaps every orphan for it, and
// ends with 0 at SIGTERM or SIGINT. A Go program would cost megabytes for each
// such pod, and a container image a download. In C:
//
//	sigaction(SIGCHLD, SIG_IGN); sigprocmask(SIG_BLOCK, {INT, TERM});
//	while (sigtimedwait({INT, TERM}) < 0) ; exit_group(0);
var initCode = map[string][]byte{
	"amd64": {
		0xb8, 0x0d, 0, 0, 0, //                   mov  $13 (rt_sigaction), %eax
		0xbf, 0x11, 0, 0, 0, //                   mov  $17 (SIGCHLD), %edi
		0x48, 0x8d, 0x35, 0x47, 0, 0, 0, //       lea  act(%rip), %rsi
		0x31, 0xd2, //                            xor  %edx, %edx
		0x41, 0xba, 8, 0, 0, 0, //                mov  $8, %r10d
		0x0f, 0x05, //                            syscall
		0xb8, 0x0e, 0, 0, 0, //                   mov  $14 (rt_sigprocmask), %eax
		0x31, 0xff, //                            xor  %edi, %edi (SIG_BLOCK)
		0x48, 0x8d, 0x35, 0x4f, 0, 0, 0, //       lea  set(%rip), %rsi
		0x31, 0xd2, //                            xor  %edx, %edx
		0x41, 0xba, 8, 0, 0, 0, //                mov  $8, %r10d
		0x0f, 0x05, //                            syscall
		0xb8, 0x80, 0, 0, 0, //             loop: mov  $128 (rt_sigtimedwait), %eax
		0x48, 0x8d, 0x3d, 0x39, 0, 0, 0, //       lea  set(%rip), %rdi
		0x31, 0xf6, //                            xor  %esi, %esi
		0x31, 0xd2, //                            xor  %edx, %edx
		0x41, 0xba, 8, 0, 0, 0, //                mov  $8, %r10d
		0x0f, 0x05, //                            syscall
		0x85, 0xc0, //                            test %eax, %eax
		0x78, 0xe4, //                            js   loop
		0xb8, 0xe7, 0, 0, 0, //                   mov  $231 (exit_group), %eax
		0x31, 0xff, //                            xor  %edi, %edi
		0x0f, 0x05, //                            syscall
	},
	"arm64": {
		0xc8, 0x10, 0x80, 0xd2, //       mov  x8, #134 (rt_sigaction)
		0x20, 0x02, 0x80, 0xd2, //       mov  x0, #17 (SIGCHLD)
		0x81, 0x02, 0x00, 0x10, //       adr  x1, act
		0x02, 0x00, 0x80, 0xd2, //       mov  x2, #0
		0x03, 0x01, 0x80, 0xd2, //       mov  x3, #8
		0x01, 0x00, 0x00, 0xd4, //       svc  #0
		0xe8, 0x10, 0x80, 0xd2, //       mov  x8, #135 (rt_sigprocmask)
		0x00, 0x00, 0x80, 0xd2, //       mov  x0, #0 (SIG_BLOCK)
		0xc1, 0x02, 0x00, 0x10, //       adr  x1, set
		0x02, 0x00, 0x80, 0xd2, //       mov  x2, #0
		0x03, 0x01, 0x80, 0xd2, //       mov  x3, #8
		0x01, 0x00, 0x00, 0xd4, //       svc  #0
		0x28, 0x11, 0x80, 0xd2, // loop: mov  x8, #137 (rt_sigtimedwait)
		0x20, 0x02, 0x00, 0x10, //       adr  x0, set
		0x01, 0x00, 0x80, 0xd2, //       mov  x1, #0
		0x02, 0x00, 0x80, 0xd2, //       mov  x2, #0
		0x03, 0x01, 0x80, 0xd2, //       mov  x3, #8
		0x01, 0x00, 0x00, 0xd4, //       svc  #0
		0x40, 0xff, 0xff, 0xb7, //       tbnz x0, #63, loop
		0xc8, 0x0b, 0x80, 0xd2, //       mov  x8, #94 (exit_group)
		0x00, 0x00, 0x80, 0xd2, //       mov  x0, #0
		0x01, 0x00, 0x00, 0xd4, //       svc  #0
	},
}

var initMachine = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// initProgram returns the init as a static ELF executable.
func initProgram() ([]byte, error) {
	code, ok := initCode[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("shareProcessNamespace: there is no init for %s", runtime.GOARCH)
	}
	const base, head = 0x400000, 64 + 56 // address; sizes of the two headers
	data := struct {
		Handler, Flags, Restorer, Mask uint64 // act: struct sigaction with SIG_IGN
		Set                            uint64 // set: SIGINT and SIGTERM
	}{Handler: 1, Set: 1<<(2-1) | 1<<(15-1)}
	size := uint64(head + len(code) + binary.Size(data))
	header := elf.Header64{
		Ident:   [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:    uint16(elf.ET_EXEC),
		Machine: uint16(initMachine[runtime.GOARCH]),
		Version: uint32(elf.EV_CURRENT), Entry: base + head, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	load := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 0x10000,
	}
	var out bytes.Buffer
	for _, part := range []any{header, load, code, data} {
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			return nil, fmt.Errorf("assemble sandbox init: %w", err)
		}
	}
	return out.Bytes(), nil
}
