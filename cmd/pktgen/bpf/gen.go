// Package bpf holds the two XDP programs of pktgen, compiled: live (the generator inside the kernel) and sink.
// The compiled objects are committed, so building pktgen needs no clang; after a change to a .bpf.c file run go generate.
package bpf

//go:generate go tool bpf2go -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu" -target bpfel Live live.bpf.c
//go:generate go tool bpf2go -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu" -target bpfel Sink sink.bpf.c
