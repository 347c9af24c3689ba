package reassembly

// Verdict says what became of a fragment.
type Verdict uint8

// The verdicts. From Duplicate on, frames come back to be recycled.
const (
	Held     Verdict = iota // kept until its datagram is complete
	Complete                // the datagram is whole

	// Only this fragment is dropped, its datagram waits on.
	Duplicate // same place, length and flag as one that is held

	// The datagram is refused: what is held of it, and what comes of it until the
	// timeout (RFC 5722 section 3: "including those not yet received").
	Overlap   // shares bytes with another fragment without being its duplicate
	BadEnd    // data behind the last fragment, or a second last fragment
	TooMany   // more fragments than Config.MaxFragments
	TooBig    // ends behind Config.MaxBytes
	BadLength // empty, at no multiple of 8, or not the last and no multiple of 8

	// VerdictCount is the number of verdicts.
	VerdictCount
)

var verdictText = [VerdictCount]struct{ phrase, rfc string }{
	Held:      {"fragment held", ""},
	Complete:  {"datagram complete", ""},
	Duplicate: {"fragment came twice", "RFC 8200 section 4.5"},
	Overlap:   {"fragments overlap", "RFC 5722 section 3"},
	BadEnd:    {"fragments disagree about the end of the datagram", "RFC 791 section 3.2"},
	TooMany:   {"datagram of too many fragments", "RFC 1858 section 2"},
	TooBig:    {"reassembled datagram too long", "RFC 791 section 3.1"},
	BadLength: {"fragment empty or not a multiple of 8 bytes", "RFC 8200 section 4.5"},
}

// String returns a short lower-case phrase.
func (v Verdict) String() string {
	if v >= VerdictCount {
		return "unknown verdict"
	}
	return verdictText[v].phrase
}

// RFC returns the document and section behind a refusal, nothing for the first
// two.
func (v Verdict) RFC() string {
	if v >= VerdictCount {
		return ""
	}
	return verdictText[v].rfc
}
