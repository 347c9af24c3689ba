//go:build !amd64

package aesgcm

const accelerated = false

// No key is made for these.
var sealKernels, openKernels [keyPortable][kinds]kernel

func expand(*context, *byte, int) { panic("aesgcm: no kernels on this machine") }
