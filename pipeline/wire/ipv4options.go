package wire

// RFC 791 section 3.1. End of list and no-operation are one byte; every other
// option:
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|C|Cls| Number  |    Length     |    Pointer    |    data ...   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// C: copy the option into every fragment. Length counts the whole option. Only
// routes and the timestamp have a pointer: it counts from 1, from the first byte
// of the option.

// Option types with the copied flag and class, as they stand in the byte.
const (
	ipv4OptEnd         = 0
	ipv4OptNop         = 1
	ipv4OptRecordRoute = 7
	ipv4OptTimestamp   = 68
	ipv4OptLooseRoute  = 131
	ipv4OptStrictRoute = 137

	ipv4OptCopied = 0x80
)

// ipv4OptLen returns the whole length of the option at opts[0], or the fault of a
// length that does not fit. Padding options have length 1.
func ipv4OptLen(opts []byte) (int, Fault) {
	if opts[0] == ipv4OptEnd || opts[0] == ipv4OptNop {
		return 1, OK
	}
	if len(opts) < 2 {
		return 0, IPv4OptionCut
	}
	n := int(opts[1])
	if n < 2 || n > len(opts) {
		return 0, IPv4OptionLength
	}
	return n, OK
}

// CheckIPv4Options checks the options of hdr, a header that CheckIPv4 has
// accepted, cut to its header length. Source routes are refused whatever they
// contain, as RFC 7126 sections 4.3.5 and 4.4.5 advise.
func CheckIPv4Options(hdr []byte) Fault {
	seenRecord, seenTime := false, false
	for opts := hdr[IPv4Len:]; len(opts) > 0 && opts[0] != ipv4OptEnd; {
		n, f := ipv4OptLen(opts)
		if f != OK {
			return f
		}
		switch opts[0] {
		case ipv4OptLooseRoute, ipv4OptStrictRoute:
			return IPv4OptionSourceRoute
		case ipv4OptRecordRoute:
			f = checkRecordRoute(opts[:n], seenRecord)
			seenRecord = true
		case ipv4OptTimestamp:
			f = checkTimestamp(opts[:n], seenTime)
			seenTime = true
		}
		if f != OK {
			return f
		}
		opts = opts[n:]
	}
	return OK
}

// checkRecordRoute checks one record route option: type, length, pointer, and
// whole addresses. It may appear once.
func checkRecordRoute(opt []byte, again bool) Fault {
	switch {
	case again:
		return IPv4OptionRepeated
	case len(opt) < 3 || len(opt)%4 != 3:
		return IPv4OptionLength
	case opt[2] < 4 || opt[2]%4 != 0:
		return IPv4OptionPointer
	}
	return OK
}

// checkTimestamp checks one timestamp option: type, length, pointer, overflow and
// flags, and whole 4-byte words. It may appear once.
func checkTimestamp(opt []byte, again bool) Fault {
	switch {
	case again:
		return IPv4OptionRepeated
	case len(opt) < 4 || len(opt)%4 != 0:
		return IPv4OptionLength
	case opt[2] < 5 || opt[2]%4 != 1:
		return IPv4OptionPointer
	}
	return OK
}
