package aesgcm

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"
)

// spreadRounds are the round keys of a packet of several tiles, each in four lanes, from a multiple of 64 on. A kernel
// writes them and wipes them at its end. Like all keys they lie outside the Go heap.
type spreadRounds [16][64]byte

// spreads are those that no burst has.
var spreads struct {
	mu   sync.Mutex
	free []*spreadRounds
}

const spreadChunk = 64 << 10

// takeSpread takes spreadRounds for as long as a burst lives. Unlike a vault it goes on if they cannot be locked: a burst has
// nobody to tell, and what stands there does so for microseconds.
func takeSpread(b *Burst) *spreadRounds {
	s := &spreads
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 {
		m, _, err := hiddenMemory(spreadChunk)
		if err != nil {
			panic(fmt.Sprintf("aesgcm: %v", err))
		}
		for at := 0; at < len(m); at += int(unsafe.Sizeof(spreadRounds{})) {
			s.free = append(s.free, (*spreadRounds)(unsafe.Pointer(&m[at])))
		}
	}
	r := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	runtime.AddCleanup(b, giveSpread, r)
	return r
}

func giveSpread(r *spreadRounds) {
	s := &spreads
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, r)
}
