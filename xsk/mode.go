package xsk

import "fmt"

// Mode is how packets get between a driver and our memory.
type Mode uint8

const (
	// ModeAuto takes the first that works of zero-copy, copy and generic, and
	// reports why it was not an earlier one.
	ModeAuto Mode = iota
	// ModeZeroCopy: the card reads and writes the UMEM itself.
	ModeZeroCopy
	// ModeCopy: the driver runs the XDP program, the kernel copies each packet.
	ModeCopy
	// ModeGeneric: any driver; the kernel builds its own packet buffer, runs
	// the program on it, and copies.
	ModeGeneric
)

var modeNames = [...]string{"auto", "zero-copy", "copy", "generic"}

// String is the mode's name as the configuration file writes it.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// ParseMode is the inverse of [Mode.String].
func ParseMode(s string) (Mode, error) {
	for m, name := range modeNames {
		if s == name {
			return Mode(m), nil
		}
	}
	return ModeAuto, fmt.Errorf("mode %q: allowed are auto, zero-copy, copy and generic", s)
}
