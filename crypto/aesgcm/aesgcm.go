// Package aesgcm seals and opens bursts of packets with AES-GCM (NIST SP 800-38D), each with a key, an IV and
// additional data of its own, in place, with tags of 16 bytes. A nonce is the salt of 4 bytes that belongs to the key and
// the packet's IV of 8 bytes, as in ESP and IKE (RFC 4106, section 4; RFC 5282, section 4).
//
//	vault, err := aesgcm.NewVault(aesgcm.Options{})
//	key, err := vault.Key(secret, salt)
//	burst.Set(i, &key, text, iv, aad) // i from 0 to 63 at the most
//	burst.Seal()
//	burst.Reset()
//
// A burst is faster than its packets one after another because short packets are treated side by side, and longer ones
// overlap with their neighbours: AES and the hash have execution units of their own, and one alone leaves the other
// idle. That is done by kernels in assembly for CPUs with VAES and VPCLMULQDQ on 512-bit registers, which
// the program in gen writes. Elsewhere, and on demand, crypto/cipher does the work packet by packet; answers and memory
// are the same, except that crypto/cipher's keys lie on the Go heap.
//
// The files: vault.go keeps keys, burst.go collects packets and gives them to kernels, plan.go works out how packets lie in
// registers and which kernel takes them, portable.go is the way without kernels.
package aesgcm

//go:generate go run ./gen

import "errors"

// Sizes in bytes.
const (
	TagSize  = 16
	SaltSize = 4
	IVSize   = 8
	MaxAAD   = 16      // ESP has 8 or 12
	MaxText  = 1 << 16 // without the tag
)

// MaxBurst is how many packets a burst holds.
const MaxBurst = 64

// ErrKeySize says that a secret has a wrong length.
var ErrKeySize = errors.New("aesgcm: a key has 16 or 32 bytes")

// Accelerated reports whether this CPU has what the kernels need: AVX-512 F, BW, VL, DQ and VBMI2, VAES, VPCLMULQDQ, BMI2
// and POPCNT.
func Accelerated() bool { return accelerated }

// An AAD is the additional data of a packet: its first and its next 8 bytes, as binary.LittleEndian reads them, which is
// a plain load on common machines, and how many they are. Bytes behind the first Len must be zero.
type AAD struct {
	First, Next uint64
	Len         uint8
}
