// Package bpf is the steering program of a port: the XDP program that decides,
// for every frame that the interface receives, whether the worker of its queue
// gets it or the kernel does.
package bpf

//go:generate go tool bpf2go -cc clang-14 -target bpfel -go-package bpf -no-global-types -type steer_class -cflags "-O2 -mcpu=v3 -Wall -Wextra -Werror" steer steer.bpf.c
