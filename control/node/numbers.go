package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"

	"causeway/pipeline"
)

// numberBlock is how many sequence numbers of a tunnel are reserved at a time: four seconds at a million packets a
// second. A router that checks the order takes a jump forward of less than 2^31.
const numberBlock = 1 << 22

// numbersFile is where the marks stand in node.state_dir.
const numbersFile = "gre-sequence.json"

// numbers keeps the GRE sequence numbers of tunnels growing across restarts, for a customer's router that checks the
// order would drop everything behind the highest number that it has seen. Before a tunnel uses numbers a mark above
// them is on disk; who starts after a crash begins at the mark. A mark belongs to the two ends and the key, which is
// what the router knows a tunnel by, so a tunnel may be given another name. Nothing is written, and no directory is
// needed, unless a tunnel says `sequence: true`.
type numbers struct {
	dir *stateDir

	// next returns the next number of a tunnel that numbers its packets now.
	next func(tunnel string) (uint64, bool)

	// Two locks, so that a disk that hangs holds up new tunnels with sequence numbers, but not a change of links.
	// writing is held while the disk is asked, and taken before mu.
	writing sync.Mutex
	marks   map[string]uint64 // by ends, as on disk: no number from here on was used; nil: none was needed yet
	failing bool              // extend could not write the last time

	mu      sync.Mutex
	tunnels map[string]string // by ends: the tunnel that the workers know
	used    map[string]uint64 // by ends: the next number when it was last looked at, whether that could be written or not
}

// endsOf is how a tunnel stands in the file.
func endsOf(t *pipeline.TunnelSpec) string {
	ends := fmt.Sprintf("%s %s", t.Endpoint, t.CustomerEndpoint)
	if t.HasKey {
		ends += fmt.Sprintf(" key %d", t.Key)
	}
	return ends
}

func newNumbers(dir *stateDir, next func(tunnel string) (uint64, bool)) *numbers {
	return &numbers{dir: dir, next: next, used: map[string]uint64{}}
}

// reserve gives the tunnels of s that begin to number their packets a first number, after a mark above it was written.
func (n *numbers) reserve(s *pipeline.Spec) error {
	begin := n.beginners(s)
	if len(begin) == 0 {
		return nil
	}
	return n.begin(begin)
}

// beginners are the tunnels of s that number their packets and do not yet.
func (n *numbers) beginners(s *pipeline.Spec) []*pipeline.TunnelSpec {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*pipeline.TunnelSpec
	for i := range s.Tunnels {
		t := &s.Tunnels[i]
		if !t.Sequence {
			continue
		}
		if _, running := n.next(t.Name); !running || n.tunnels[endsOf(t)] != t.Name {
			out = append(out, t)
		}
	}
	return out
}

// use notes which tunnels the workers know now.
func (n *numbers) use(s *pipeline.Spec) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tunnels = map[string]string{}
	for i := range s.Tunnels {
		if t := &s.Tunnels[i]; t.Sequence {
			n.tunnels[endsOf(t)] = t.Name
		}
	}
}

// begin reserves the first block of each tunnel.
func (n *numbers) begin(tunnels []*pipeline.TunnelSpec) error {
	n.writing.Lock()
	defer n.writing.Unlock()
	if err := n.load(); err != nil {
		return err
	}
	marks := maps.Clone(n.marks)
	for _, t := range tunnels {
		ends := endsOf(t)
		t.FirstNumber = n.marks[ends]
		if used := n.lastUsed(ends); used > 0 && used+numberBlock/2 > t.FirstNumber { // marks could not be written
			t.FirstNumber = used + numberBlock/2
		}
		marks[ends] = t.FirstNumber + numberBlock
	}
	return n.write(marks)
}

func (n *numbers) lastUsed(ends string) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.used[ends]
}

// extend moves the marks of tunnels that have used half of what was reserved. A mark that can not be written is tried
// again the next time, and packets go on: the error is returned once.
func (n *numbers) extend() error {
	n.writing.Lock()
	defer n.writing.Unlock()
	err := n.update(func(mark, number uint64) uint64 {
		if mark < number+numberBlock/2 {
			return number + numberBlock
		}
		return mark
	})
	again := n.failing && err != nil
	n.failing = err != nil
	if again {
		return nil
	}
	return err
}

// settle writes the next numbers themselves: the workers have stopped, and the next start goes on where they ended.
func (n *numbers) settle() error {
	n.writing.Lock()
	defer n.writing.Unlock()
	if err := n.update(func(_, number uint64) uint64 { return number }); err != nil {
		return fmt.Errorf("where the sequence numbers ended is not written, and some may come again after the next start: %w", err)
	}
	return nil
}

// update moves the mark of each tunnel that numbers its packets. It is called with writing held.
func (n *numbers) update(moved func(mark, number uint64) uint64) error {
	marks := n.moved(moved)
	if maps.Equal(marks, n.marks) {
		return nil
	}
	return n.write(marks)
}

func (n *numbers) moved(moved func(mark, number uint64) uint64) map[string]uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	marks := maps.Clone(n.marks)
	for ends, tunnel := range n.tunnels {
		if number, running := n.next(tunnel); running {
			n.used[ends] = number
			marks[ends] = moved(marks[ends], number)
		}
	}
	return marks
}

// load takes the directory for this daemon alone and reads the marks, the first time.
func (n *numbers) load() error {
	if n.marks != nil {
		return nil
	}
	if err := n.dir.take(); err != nil {
		return n.explain(err)
	}
	marks, err := readMarks(n.dir)
	if err != nil {
		return err
	}
	n.marks = marks
	return nil
}

func readMarks(dir *stateDir) (map[string]uint64, error) {
	b, err := dir.read(numbersFile)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]uint64{}, nil
	}
	if err != nil {
		return nil, err
	}
	var marks map[string]uint64
	err = json.Unmarshal(b, &marks)
	if err == nil && marks == nil {
		err = errors.New("null")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: not what this daemon writes: %w; restore it, or remove it: then sequence numbers begin at 0, "+
			"and a router that checks the order drops packets until its end of the tunnel is made anew", dir.file(numbersFile), err)
	}
	return marks, nil
}

// write replaces the file: after a crash it is the old one or the new one, and the new one before anything relies on it.
func (n *numbers) write(marks map[string]uint64) error {
	b, err := json.MarshalIndent(marks, "", "  ")
	if err != nil {
		return err
	}
	if err := n.dir.write(numbersFile, append(b, '\n')); err != nil {
		return n.explain(err)
	}
	n.marks = marks
	return nil
}

func (n *numbers) explain(err error) error {
	if errors.Is(err, ErrStateInUse) || errors.Is(err, errStateOpen) {
		return err
	}
	return fmt.Errorf("node.state_dir: tunnels with `sequence: true` keep their numbers there: %w; %s", err, advice(err))
}
