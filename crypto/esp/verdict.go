package esp

// A Verdict says what became of a packet, or why it went no further.
type Verdict uint8

// The verdicts. OK and Dummy are no faults.
const (
	OK    Verdict = iota
	Dummy         // next header 59: to be dropped in silence (RFC 4303, section 2.6)

	// receiving
	Short    // shorter than the algorithm's least, or not a multiple of its block
	Left     // left of the replay window (RFC 4303, section 3.4.3)
	Replayed // inside the window, but received before
	Below    // below the floor: other nodes have received higher numbers a while ago
	Forged   // the integrity check value is wrong
	Padding  // the padding is longer than the text, or not 1, 2, 3... (section 2.4)

	// sending
	Room      // the frame has no room for header or trailer
	Exhausted // all sequence numbers of the association were used (section 3.3.3)
	Unmarked  // the next sequence number is not reserved yet, on disk or in the store
	NoIV      // no IV is reserved for this process

	// both
	Expired  // the association's hard lifetime is over
	Selector // the text lies outside of the selectors, which the caller knows (RFC 4301, section 5)

	// Verdicts is how many there are.
	Verdicts
)

var verdictNames = [...]string{
	OK: "ok", Dummy: "dummy", Short: "short", Left: "left of window", Replayed: "replayed", Below: "below the floor", Forged: "forged", Padding: "padding",
	Room: "no room", Exhausted: "sequence numbers exhausted", Unmarked: "sequence numbers not reserved", NoIV: "no iv", Expired: "expired",
}

func (v Verdict) String() string { return verdictNames[v] }
