package main

import (
	"fmt"
	"strconv"
)

// Frame sizes are given as on the wire, the 4-byte FCS included (64 is the smallest Ethernet frame), and without what
// a VLAN tag or an encapsulation adds. Everywhere below the command line a frame length excludes the FCS, since that
// is what rings and counters see.
const (
	fcsLen      = 4
	minSize     = 64
	maxFrameLen = 2048 // one UMEM chunk
)

// A mix is an ordered round of frame sizes; the generator repeats the round.
type mix struct {
	sizes []int   // with FCS; 0 = the smallest frame that holds what is asked for
	order []uint8 // index into sizes, one entry per frame of a round
}

// imix is the "simple IMIX" 7:4:1, interleaved so that every stretch of a round is close to the whole.
var imix = mix{
	sizes: []int{64, 594, 1518},
	order: []uint8{0, 1, 0, 0, 1, 0, 2, 0, 1, 0, 1, 0},
}

func fixedSize(n int) mix { return mix{sizes: []int{n}, order: []uint8{0}} }

// parseMix reads the value of --size.
func parseMix(s string) (mix, error) {
	switch s {
	case "imix":
		return imix, nil
	case "min":
		return fixedSize(0), nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < minSize || n > maxFrameLen+fcsLen {
		return mix{}, fmt.Errorf("size %q is not allowed: give a frame size of %d to %d bytes (with FCS), \"min\" or \"imix\"",
			s, minSize, maxFrameLen+fcsLen)
	}
	return fixedSize(n), nil
}

// parseCount reads a number that may end in k, M or G (powers of 1000).
func parseCount(s string) (uint64, error) {
	unit := uint64(1)
	digits := s
	if s != "" {
		switch s[len(s)-1] {
		case 'k':
			unit = 1e3
		case 'M':
			unit = 1e6
		case 'G':
			unit = 1e9
		}
		if unit > 1 {
			digits = s[:len(s)-1]
		}
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil || !(f >= 0) || f*float64(unit) > 1e15 {
		return 0, fmt.Errorf("%q is not a number of 0 to 10^15, with k, M or G for powers of 1000", s)
	}
	return uint64(f*float64(unit) + 0.5), nil
}
