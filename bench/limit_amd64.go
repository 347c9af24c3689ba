package main

//go:noescape
func aes10mul3(n int)

//go:noescape
func aes14mul3(n int)

//go:noescape
func mul2(n int)
