//go:build !amd64

package aesgcm

const accelerated = false

// No key is made for these.
var sealKernels, openKernels [classes]kernel

func expand(*context, *byte, int) { panic("aesgcm: no kernels on this machine") }

func (w *work) plan(n int) presence { return w.planEach(n) }

func (w *work) collect(c class, n int) int { return w.collectEach(c, n) }

func (w *work) failures(n int) uint64 { return w.failuresEach(n) }
