package node

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"causeway/config"
	"causeway/control/api"
	"causeway/crypto/aesgcm"
	"causeway/crypto/esp"
	"causeway/pipeline"
)

// Blocks of what is reserved on disk at a time: as much as is skipped after a crash. IVs are those of all associations
// of the node: four seconds at 16 million packets a second, and 2^18 crashes until they are used up. Without ESN an
// association has 2^32 sequence numbers, so its blocks begin small, for 2^14 crashes, and grow while they are used up fast.
const (
	ivReserve       = 1 << 26
	sequenceReserve = numberBlock
	firstReserve    = 1 << 18
)

// A block that lasts less than hurried is followed by one four times as large, one that lasts more than idle by a smaller one.
const (
	hurried = 2 * time.Second
	idle    = time.Minute
)

// receivedInterval is how often it is written down what was received: what came since the last time may come again once
// after a crash.
const receivedInterval = 2 * time.Second

// espFile is where the marks stand in node.state_dir.
const espFile = "esp.json"

// espMarks is the content of the file: nothing from here on was used, and of what was received nothing may come again.
type espMarks struct {
	Writer   uint32            `json:"writer"` // of the IVs
	IV       uint64            `json:"iv"`
	Sequence map[string]uint64 `json:"sequence"` // by SPI and key
	Received map[string]uint64 `json:"received"` // likewise
}

// newESPMarks are those of a node that has none, or has lost them. What it used before nobody knows, so its IVs begin at a
// random place under a random writer: with keys that were in use one comes again with odds of less than 2^-35 for each
// 2^26 that are used.
func newESPMarks() espMarks {
	return espMarks{Writer: randomBelow(esp.MaxWriter + 1), IV: uint64(randomBelow(1<<20)) * (esp.MaxIVs >> 21), Sequence: map[string]uint64{}, Received: map[string]uint64{}}
}

// randomBelow returns a random number below n, a power of two of at most 2^32.
func randomBelow(n uint64) uint32 {
	var b [4]byte
	rand.Read(b[:])
	return uint32(uint64(binary.BigEndian.Uint32(b[:])) & (n - 1))
}

func (m espMarks) clone() espMarks {
	return espMarks{m.Writer, m.IV, maps.Clone(m.Sequence), maps.Clone(m.Received)}
}

func (m espMarks) equal(o espMarks) bool {
	return m.Writer == o.Writer && m.IV == o.IV && maps.Equal(m.Sequence, o.Sequence) && maps.Equal(m.Received, o.Received)
}

// receive notes what p has received.
func (m espMarks) receive(p *association, highest uint64) {
	if highest > m.Received[p.floor] {
		m.Received[p.floor] = highest
	}
}

// An association is the live pair of a tunnel.
type association struct {
	in   *esp.Inbound
	out  *esp.Outbound
	of   config.ManualSA
	mark string // its key in espMarks.Sequence
	end  uint64 // below it are the sequence numbers that are its alone

	block  uint64    // how many are reserved at a time
	since  time.Time // when they were last
	warned bool      // that they come to their end
	tunnel string    // for that

	floor string // its key in espMarks.Received
}

// associations are the security associations of the node, and the marks that keep their IVs and sequence numbers from
// coming twice. A pair lives as long as the configuration has it unchanged, whatever else is reloaded.
type associations struct {
	dir   *stateDir
	log   *slog.Logger
	vault *aesgcm.Vault
	ivs   *esp.IVSource

	mu    sync.Mutex              // guards the maps
	pairs map[string]*association // by tunnel

	writing sync.Mutex // guards marks and file; taken before mu
	loaded  bool
	marks   espMarks
	failing bool      // extend could not write the last time
	noted   time.Time // when extend noted last what was received
}

// errNoMarks says that the file is there and has no marks.
var errNoMarks = errors.New("not what this daemon writes")

func newAssociations(dir *stateDir, log *slog.Logger) *associations {
	return &associations{dir: dir, log: log, vault: aesgcm.NewVault(aesgcm.Options{}), ivs: new(esp.IVSource), pairs: map[string]*association{}}
}

// prepare makes the pairs that c has and that do not live yet, beside those that do, after what they need was reserved.
func (a *associations) prepare(c *config.Config) error {
	a.writing.Lock()
	defer a.writing.Unlock()
	fresh := a.missing(c)
	if len(fresh) == 0 {
		return nil
	}
	if err := a.load(); err != nil {
		return a.explain(err)
	}
	marks := a.marks.clone()
	a.noteReceived(marks) // one of them may have the keys of a fresh one
	made := map[string]*association{}
	for _, t := range fresh {
		p, err := a.make(t, &marks)
		if err != nil {
			wipe(made)
			return fmt.Errorf("tunnel %s: %w", t.Name, err)
		}
		made[pairKey(t)] = p
	}
	if err := a.write(marks); err != nil {
		wipe(made)
		return a.explain(err)
	}
	for _, p := range made {
		p.out.Mark(p.end)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.Copy(a.pairs, made)
	return nil
}

// missing lists the IPsec tunnels of c whose pair does not live.
func (a *associations) missing(c *config.Config) (out []config.Tunnel) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range c.Tunnels {
		if t.IPsec != nil && a.pairs[pairKey(t)] == nil {
			out = append(out, t)
		}
	}
	return out
}

// pairKey tells apart all pairs that may live at once: a tunnel's, and the one that it had before a reload. SPIs alone do
// not: one may have got other keys, which stand in it as a hash.
func pairKey(t config.Tunnel) string {
	i := t.IPsec
	h := sha256.New()
	h.Write(i.SA.KeyIn)
	h.Write(i.SA.KeyOut)
	return fmt.Sprintf("%s %d %d %s %v %d %x", t.CustomerEndpoint, i.SA.SPIIn, i.SA.SPIOut, i.SA.Encryption, i.SA.ESN, i.ReplayWindow, h.Sum(nil))
}

// make makes a pair whose sequence numbers begin at its mark, and moves the mark.
func (a *associations) make(t config.Tunnel, marks *espMarks) (*association, error) {
	i := t.IPsec
	suite, err := esp.ParseSuite(i.SA.Encryption)
	if err != nil {
		return nil, err
	}
	p := &association{of: i.SA, mark: markOf(i.SA.SPIOut, i.SA.KeyOut), floor: markOf(i.SA.SPIIn, i.SA.KeyIn),
		block: firstReserve, since: time.Now(), tunnel: t.Name}
	if i.SA.ESN {
		p.block = sequenceReserve
	}
	p.in, err = esp.NewInbound(a.vault, esp.Params{SPI: i.SA.SPIIn, Suite: suite, Key: i.SA.KeyIn, ESN: i.SA.ESN}, i.ReplayWindow)
	if err != nil {
		return nil, err
	}
	if i.ReplayWindow > 0 {
		p.in.Begin(marks.Received[p.floor])
	}
	first := max(marks.Sequence[p.mark], 1)
	p.out, err = esp.NewOutbound(a.vault, esp.Params{SPI: i.SA.SPIOut, Suite: suite, Key: i.SA.KeyOut, ESN: i.SA.ESN}, first)
	if err != nil {
		p.in.Wipe()
		return nil, err
	}
	p.end = first + p.block
	marks.Sequence[p.mark] = p.end
	return p, nil
}

// markOf is what the numbers of a pair belong to: the SPI and the key, wherever they go, for the customer's window is that
// of its association. New keys begin anew. Of the key a hash stands there, too short to find a key with it.
func markOf(spi uint32, key []byte) string {
	h := sha256.Sum256(key)
	return fmt.Sprintf("spi %#x key %x", spi, h[:4])
}

// of returns what the workers are told of a tunnel's pair.
func (a *associations) of(t config.Tunnel) *pipeline.SASpec {
	if t.IPsec == nil {
		return nil
	}
	s := &pipeline.SASpec{UDP: t.IPsec.SA.UDPEncap, Local: slices.Clone(t.IPsec.Local), Remote: slices.Clone(t.IPsec.Remote)}
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.pairs[pairKey(t)]; p != nil {
		s.Inbound, s.Outbound = []*esp.Inbound{p.in}, p.out
	}
	return s
}

// retain wipes all pairs that c does not have. The workers must have left them. What was reserved for them and not used is
// given back, if the disk takes it.
func (a *associations) retain(c *config.Config) {
	a.writing.Lock()
	defer a.writing.Unlock()
	marks := a.marks.clone()
	for _, p := range a.remove(c) {
		if marks.Sequence[p.mark] == p.end {
			marks.Sequence[p.mark] = p.out.Next()
		}
		marks.receive(p, p.in.Received())
		p.wipe()
	}
	if !marks.equal(a.marks) {
		if a.write(marks) != nil {
			a.marks = marks // for the next write. Until then the higher marks stand there, and after a crash numbers are skipped
		}
	}
}

// remove takes out the pairs that c does not have.
func (a *associations) remove(c *config.Config) (out []*association) {
	keep := map[string]bool{}
	for _, t := range c.Tunnels {
		if t.IPsec != nil {
			keep[pairKey(t)] = true
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, p := range a.pairs {
		if !keep[key] {
			out = append(out, p)
			delete(a.pairs, key)
		}
	}
	return out
}

func (p *association) wipe() {
	p.in.Wipe()
	p.out.Wipe()
}

// wipe ends pairs that never lived.
func wipe(pairs map[string]*association) {
	for _, p := range pairs {
		p.wipe()
	}
}

// load takes the state directory, reads the marks, the first time, and reserves the first IVs above them.
func (a *associations) load() error {
	if a.loaded {
		return nil
	}
	if err := a.dir.take(); err != nil {
		return err
	}
	marks, err := readESPMarks(a.dir)
	if errors.Is(err, fs.ErrNotExist) {
		marks, err = newESPMarks(), nil
		a.log.Info("no marks of IPsec tunnels, as with a new node: IVs begin at a random place, and sequence numbers at 1",
			"file", a.dir.file(espFile), "writer", marks.Writer)
	}
	if err != nil {
		return err
	}
	// The counter goes on above the mark with the same writer: a node without a cluster has one for ever.
	next := marks.IV
	a.marks = marks.clone()
	marks.IV = min(next+ivReserve, esp.MaxIVs)
	if err := a.write(marks); err != nil {
		return err
	}
	if err := a.ivs.Begin(marks.Writer, next); err != nil {
		return err
	}
	a.ivs.Reserve(marks.IV)
	a.loaded = true
	return nil
}

// espMarksFile is how the marks stand in the file: all of them, with a hash, because one that is wrong by chance or by hand is
// not noticed before IVs come again.
type espMarksFile struct {
	espMarks
	Check string `json:"check"`
}

// check is a hash of the marks.
func (m espMarks) check() string {
	b, err := json.Marshal(m) // maps in the order of their keys
	if err != nil {
		panic(err) // numbers and strings
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}

func readESPMarks(dir *stateDir) (espMarks, error) {
	b, err := dir.read(espFile)
	if err != nil {
		return espMarks{}, err
	}
	var f espMarksFile
	if err = json.Unmarshal(b, &f); err == nil {
		err = f.valid()
	}
	if err != nil {
		return espMarks{}, fmt.Errorf("%s: %w: %w; give all IPsec tunnels new keys and remove the file: an older one from a backup would "+
			"make IVs and sequence numbers come again", dir.file(espFile), errNoMarks, err)
	}
	return f.espMarks, nil
}

// valid says what of a file cannot be.
func (f *espMarksFile) valid() error {
	switch {
	case f.Sequence == nil || f.Received == nil:
		return errors.New("something is missing")
	case f.Check != f.check():
		return fmt.Errorf("check is %q, that of the rest is %q", f.Check, f.check())
	case f.Writer > esp.MaxWriter || f.IV > esp.MaxIVs:
		return errors.New("writer or iv is too large")
	case f.IV == esp.MaxIVs:
		return fmt.Errorf("all of %d IVs are used", uint64(esp.MaxIVs))
	}
	for what, n := range f.Sequence {
		if n > math.MaxUint64-sequenceReserve {
			return fmt.Errorf("the sequence number of %s is too large", what)
		}
	}
	return nil
}

// write replaces the file, before anything relies on it. It is called with writing held.
func (a *associations) write(marks espMarks) error {
	b, err := json.MarshalIndent(espMarksFile{marks, marks.check()}, "", "  ")
	if err != nil {
		return err
	}
	if err := a.dir.write(espFile, append(b, '\n')); err != nil {
		return err
	}
	a.marks = marks
	return nil
}

// extend moves the marks before what is reserved is used up. An error is returned once, and tried again the next time;
// when what is reserved is used up, packets are dropped.
func (a *associations) extend() error {
	a.writing.Lock()
	defer a.writing.Unlock()
	if !a.loaded {
		return nil
	}
	marks := a.marks.clone()
	if a.ivs.Next()+ivReserve/2 > marks.IV {
		marks.IV = min(a.ivs.Next()+ivReserve, esp.MaxIVs)
	}
	more := map[*association]reservation{}
	for _, p := range a.live() {
		// Numbers above a pair's own may be those of another pair with the same key, which comes after it.
		if shown := p.out.Next(); shown+p.block/2 > p.end && marks.Sequence[p.mark] == p.end {
			block := p.nextBlock()
			more[p] = reservation{shown + block, block}
			marks.Sequence[p.mark] = shown + block
		}
		a.warn(p)
	}
	if now := time.Now(); now.Sub(a.noted) >= receivedInterval {
		a.noteReceived(marks)
		a.noted = now
	}
	if marks.equal(a.marks) {
		return nil // and whether the disk takes it is as unknown as before
	}
	err := a.commit(marks, more)
	again := a.failing && err != nil
	a.failing = err != nil
	if again {
		return nil
	}
	return err
}

// nextBlock is how many sequence numbers are reserved next.
func (p *association) nextBlock() uint64 {
	switch lasted := time.Since(p.since); {
	case lasted < hurried:
		return min(4*p.block, sequenceReserve)
	case lasted > idle && !p.of.ESN:
		return max(p.block/4, firstReserve)
	}
	return p.block
}

// warn says once that an association comes to its end.
func (a *associations) warn(p *association) {
	if p.warned || !p.out.Soft() {
		return
	}
	p.warned = true
	a.log.Warn("three quarters of an association's sequence numbers are used or were skipped: at 4294967296 the tunnel sends nothing more; "+
		"give both ends new keys and SPIs, or esn: true", "tunnel", p.tunnel, "spi", p.of.SPIOut, "next", p.out.Next())
}

// noteReceived notes what the pairs have received by now.
func (a *associations) noteReceived(marks espMarks) {
	for _, p := range a.live() {
		marks.receive(p, p.in.Received())
	}
}

// A reservation is sequence numbers that a pair may use once its end is written as a mark.
type reservation struct{ end, block uint64 }

// commit writes the marks, and only then permits what they reserve.
func (a *associations) commit(marks espMarks, more map[*association]reservation) error {
	if err := a.write(marks); err != nil {
		return err
	}
	a.ivs.Reserve(marks.IV)
	for p, r := range more {
		p.end, p.block, p.since = r.end, r.block, time.Now()
		p.out.Mark(r.end)
	}
	return nil
}

func (a *associations) live() []*association {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Values(a.pairs))
}

// settle writes where IVs and sequence numbers ended: the workers have stopped.
func (a *associations) settle() error {
	a.writing.Lock()
	defer a.writing.Unlock()
	if !a.loaded {
		return nil
	}
	marks := a.marks.clone()
	marks.IV = a.ivs.Next()
	for _, p := range a.live() {
		if marks.Sequence[p.mark] == p.end {
			marks.Sequence[p.mark] = p.out.Next()
		}
		marks.receive(p, p.in.Received())
	}
	if marks.equal(a.marks) {
		return nil
	}
	if err := a.write(marks); err != nil {
		return fmt.Errorf("where IVs and sequence numbers of IPsec tunnels ended is not written, so some are skipped at the next start, and what was received lately can come again: %w", err)
	}
	return nil
}

func (a *associations) explain(err error) error {
	if errors.Is(err, errStateInUse) || errors.Is(err, errStateOpen) || errors.Is(err, errNoMarks) {
		return err
	}
	return fmt.Errorf("node.state_dir: IPsec tunnels keep marks of their IVs and sequence numbers there: %w; make it writable", err)
}

// close wipes all keys. The workers must have stopped.
func (a *associations) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.pairs)
	return a.vault.Close()
}

// show lists the associations of the tunnels of c, in the order of the file.
func (a *associations) show(c *config.Config, owner func(spi uint32) int) []api.SA {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := []api.SA{}
	for _, t := range c.Tunnels {
		if t.IPsec == nil {
			continue
		}
		p := a.pairs[pairKey(t)]
		if p == nil {
			continue
		}
		common := api.SA{Tunnel: t.Name, Encryption: p.of.Encryption, ESN: p.of.ESN, UDPEncap: t.IPsec.SA.UDPEncap}
		in, outbound := common, common
		in.Direction, in.SPI, in.Worker, in.ReplayWindow, in.SoftExpired = "in", p.of.SPIIn, owner(p.of.SPIIn), t.IPsec.ReplayWindow, p.in.Soft()
		outbound.Direction, outbound.SPI, outbound.Worker, outbound.Sequence, outbound.SoftExpired = "out", p.of.SPIOut, owner(p.of.SPIOut), p.out.Next(), p.out.Soft()
		in.Sequence, in.Packets, in.Bytes, in.Refused = p.in.Received(), p.in.Packets(), p.in.Bytes(), refused(p.in.Refused, pipeline.OpenReason)
		outbound.Packets, outbound.Bytes, outbound.Refused = p.out.Packets(), p.out.Bytes(), refused(p.out.Refused, pipeline.SealReason)
		out = append(out, in, outbound)
	}
	return out
}

// refused names what an association refused by the reasons under which the pipeline drops it.
func refused(count func(esp.Verdict) uint64, reason func(esp.Verdict) pipeline.Reason) map[string]uint64 {
	out := map[string]uint64{}
	for v := esp.OK + 1; v < esp.Verdicts; v++ {
		if n := count(v); n > 0 {
			out[reason(v).Info().Label] += n
		}
	}
	return out
}
