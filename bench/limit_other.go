//go:build !amd64

package main

// Never called: no limit is measured where there are no kernels.
func aes10mul3(int) {}
func aes14mul3(int) {}
func mul2(int)      {}
