package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"causeway/control/cluster/seal"
)

// A node asks another something, and gets an answer that may be long: what analytics there has counted. The answer is made once and kept
// for a moment; who asks fetches it piece by piece, as fast as it takes the pieces, so that what nodes tell each other of keys does not stand
// behind it for long.

// subjectInquiry is where a node is asked; its name follows.
const subjectInquiry = "causeway.inquire."

// An inquiry says which piece of an answer is wanted; the first one brings the question. It and each piece are sealed for the node that is
// asked and the inquiry's own number, so that no answer passes for that to another.
//
//	0   16 bytes  number, random
//	16  4 bytes   offset of the piece in the answer, big endian
//	20  4 bytes   milliseconds that the answer may take to be made, big endian
//	24  8 bytes   when it was asked, by the cluster's clock, in milliseconds since 1970, big endian
//	32            the question, if the offset is 0
//
// A question that is old, or whose number came before, is not answered: who carries it may repeat it.
//
// A piece is a byte, pieceOK or pieceFails; then the length of the whole answer in 4 bytes, big endian; and what there is from the offset on.
const (
	inquiryLen = 32
	pieceHead  = 5
	pieceLen   = 128 << 10

	pieceOK    = 1
	pieceFails = 0 // why follows instead of the answer
)

// Bounds of what a node does for others.
const (
	maxQuestion  = 128 << 10        // bytes
	maxAnswer    = 32 << 20         // likewise
	maxAnswers   = 64 << 20         // of all that wait to be fetched
	maxInquiries = 8                // that are answered at one time
	answerKept   = 15 * time.Second // since its last piece was fetched
	pieceLimit   = 3 * time.Second  // for a piece of an answer that is there
	piecesAtOnce = 4

	inquiryAge    = 30 * time.Second // of a question that is answered; clocks that are apart count
	maxRemembered = 10_000           // numbers of questions that are not older
)

type inquiryNumber [16]byte

// inquiries are the answers that are made for other nodes.
type inquiries struct {
	mu      sync.Mutex
	answer  func(ctx context.Context, question []byte) []byte // nil: there is nobody who answers
	running int
	ready   map[inquiryNumber]*readyAnswer
	bytes   int
	seen    map[inquiryNumber]time.Time // when, for 2 inquiryAge
}

type readyAnswer struct {
	text []byte
	left int // bytes that were not fetched yet
	last time.Time
}

// OnInquiry has other nodes' questions answered from now on. What answers may be called by several goroutines, and takes no longer than ctx.
func (c *Cluster) OnInquiry(answer func(ctx context.Context, question []byte) []byte) {
	c.inquiries.mu.Lock()
	defer c.inquiries.mu.Unlock()
	c.inquiries.answer = answer
}

func inquiryPlace(node string) string { return "inquiry|" + node }

func piecePlace(node string, n inquiryNumber, offset uint32) string {
	return fmt.Sprintf("piece|%s|%s|%d", node, hex.EncodeToString(n[:]), offset)
}

// Inquire gives a question to another node, and returns its answer. It gives up when ctx is done.
func (c *Cluster) Inquire(ctx context.Context, node string, question []byte) ([]byte, error) {
	if len(question) > maxQuestion {
		return nil, fmt.Errorf("the question has %d bytes; %d are possible: filter by fewer values", len(question), maxQuestion)
	}
	var n inquiryNumber
	rand.Read(n[:])
	first, total, err := c.fetch(ctx, node, n, 0, question)
	if err != nil {
		return nil, err
	}
	answer := make([]byte, total)
	copy(answer, first)
	return answer, c.fetchRest(ctx, node, n, answer, len(first))
}

// fetchRest fetches what follows the first bytes of an answer, into it.
func (c *Cluster) fetchRest(ctx context.Context, node string, n inquiryNumber, answer []byte, have int) error {
	offsets := make(chan int, len(answer)/pieceLen+1)
	for ; have < len(answer); have += pieceLen {
		offsets <- have
	}
	close(offsets)
	return atOnce(min(len(offsets), piecesAtOnce), func(int) error {
		for at := range offsets {
			wait, done := context.WithTimeout(ctx, pieceLimit)
			piece, total, err := c.fetch(wait, node, n, uint32(at), nil)
			done()
			switch {
			case err != nil:
				return err
			case total != len(answer) || len(piece) != min(pieceLen, total-at):
				return errPiece
			}
			copy(answer[at:], piece)
		}
		return nil
	})
}

var errPiece = errors.New("a piece of an answer is none")

// fetch fetches the piece of an answer that begins at an offset, and says how long the answer is.
func (c *Cluster) fetch(ctx context.Context, node string, n inquiryNumber, offset uint32, question []byte) (piece []byte, total int, err error) {
	left := mostInquiry
	if end, ok := ctx.Deadline(); ok {
		left = max(0, min(left, time.Until(end)))
	}
	b := binary.BigEndian.AppendUint32(n[:len(n):len(n)], offset)
	b = binary.BigEndian.AppendUint32(b, uint32(left/time.Millisecond))
	b = append(binary.BigEndian.AppendUint64(b, uint64(c.clock.common().UnixMilli())), question...)
	sealed, err := c.keys.Seal(inquiryPlace(node), b)
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	m, err := c.engine.Conn.RequestWithContext(ctx, subjectInquiry+node, sealed)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, 0, errors.New("it is not connected to this node")
	case err != nil:
		return nil, 0, err
	}
	text, err := c.keys.Open(piecePlace(node, n, offset), m.Data)
	if err != nil {
		return nil, 0, err
	}
	return parsePiece(text)
}

// mostInquiry is how long a node takes to answer at most.
const mostInquiry = 10 * time.Second

func parsePiece(b []byte) (piece []byte, total int, err error) {
	if len(b) < pieceHead {
		return nil, 0, errPiece
	}
	total, piece = int(binary.BigEndian.Uint32(b[1:])), b[pieceHead:]
	switch {
	case b[0] == pieceFails:
		return nil, 0, errors.New(string(piece))
	case b[0] != pieceOK || total > maxAnswer || len(piece) > min(total, pieceLen):
		return nil, 0, errPiece
	}
	return piece, total, nil
}

// inquired answers another node.
func (c *Cluster) inquired(m *nats.Msg) {
	b, err := c.keys.Open(inquiryPlace(c.opts.Member.Name), m.Data)
	if errors.As(err, &seal.EpochError{}) || m.Reply == "" {
		return
	}
	if err == nil && len(b) < inquiryLen {
		err = errors.New("an inquiry is none")
	}
	if err != nil {
		c.complain(err)
		return
	}
	n, offset, limit := inquiryNumber(b), binary.BigEndian.Uint32(b[16:]), binary.BigEndian.Uint32(b[20:])
	if offset > 0 {
		c.sendPiece(m, n, offset)
		return
	}
	asked, now := time.UnixMilli(int64(binary.BigEndian.Uint64(b[24:]))), c.clock.common()
	if now.Sub(asked).Abs() > inquiryAge {
		c.sendFailure(m, n, 0, fmt.Errorf("its clock, or that of this node, is wrong: the question was asked at %s, and it is %s", asked.UTC().Format(time.TimeOnly), now.UTC().Format(time.TimeOnly)))
		return
	}
	i := &c.inquiries
	answer, err := i.begin(n, time.Now())
	if err != nil {
		c.sendFailure(m, n, 0, err)
		return
	}
	go func() {
		// What is left of the time is for the way of the answer.
		ctx, cancel := context.WithTimeout(context.Background(), min(time.Duration(limit)*time.Millisecond, mostInquiry)*3/4)
		defer cancel()
		text, err := c.respondTo(ctx, answer, b[inquiryLen:])
		if err := errors.Join(i.end(n, text, time.Now()), err); err != nil {
			c.sendFailure(m, n, 0, err)
			return
		}
		c.sendPiece(m, n, 0)
	}()
}

// respondTo makes an answer. What is asked comes from another node, perhaps of another release: a fault that it meets is not to end this one.
func (c *Cluster) respondTo(ctx context.Context, answer func(context.Context, []byte) []byte, question []byte) (text []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			c.log.Error("cluster: the answer to another node's question panicked", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			text, err = nil, errors.New("it could not answer: its log says why")
		}
	}()
	if text = answer(ctx, question); ctx.Err() != nil { // nobody waits any more
		return nil, ctx.Err()
	}
	return text, nil
}

// begin takes a place among the inquiries that are answered.
func (i *inquiries) begin(n inquiryNumber, now time.Time) (answer func(context.Context, []byte) []byte, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.remember(n, now); err != nil {
		return nil, err
	}
	switch {
	case i.answer == nil:
		return nil, errors.New("it has no section analytics with a store of its own")
	case i.running == maxInquiries:
		return nil, fmt.Errorf("it answers %d questions already", maxInquiries)
	}
	i.running++
	return i.answer, nil
}

// remember notes the number of a question, unless it came before. The lock is held.
func (i *inquiries) remember(n inquiryNumber, now time.Time) error {
	if _, before := i.seen[n]; before {
		return errors.New("it was asked that before")
	}
	if len(i.seen) >= maxRemembered {
		maps.DeleteFunc(i.seen, func(_ inquiryNumber, at time.Time) bool { return now.Sub(at) > 2*inquiryAge })
	}
	if len(i.seen) >= maxRemembered {
		return fmt.Errorf("it was asked %d questions within a minute", maxRemembered)
	}
	if i.seen == nil {
		i.seen = map[inquiryNumber]time.Time{}
	}
	i.seen[n] = now
	return nil
}

// end leaves that, and keeps the answer to be fetched.
func (i *inquiries) end(n inquiryNumber, text []byte, now time.Time) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.running--
	switch {
	case len(text) > maxAnswer:
		return fmt.Errorf("its answer has more than %d MiB: ask for less time, filter more, or group by less", maxAnswer>>20)
	case i.bytes+len(text) > maxAnswers || i.ready[n] != nil:
		return fmt.Errorf("%d MiB of answers wait to be fetched", i.bytes>>20)
	}
	if i.ready == nil {
		i.ready = map[inquiryNumber]*readyAnswer{}
	}
	i.ready[n], i.bytes = &readyAnswer{text, len(text), now}, i.bytes+len(text)
	time.AfterFunc(answerKept, func() { i.expire(n) })
	return nil
}

// expire forgets an answer that nobody fetches any more.
func (i *inquiries) expire(n inquiryNumber) {
	i.mu.Lock()
	defer i.mu.Unlock()
	r := i.ready[n]
	if r == nil {
		return
	}
	if left := answerKept - time.Since(r.last); left > 0 {
		time.AfterFunc(left, func() { i.expire(n) })
		return
	}
	i.drop(n)
}

// drop forgets an answer. The lock is held.
func (i *inquiries) drop(n inquiryNumber) {
	i.bytes -= len(i.ready[n].text)
	delete(i.ready, n)
}

// piece is what an answer has from an offset on. Each is fetched once.
func (i *inquiries) piece(n inquiryNumber, offset uint32, now time.Time) (piece []byte, total int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	r := i.ready[n]
	if r == nil || int64(offset) > int64(len(r.text)) {
		return nil, -1
	}
	piece = r.text[offset:min(int(offset)+pieceLen, len(r.text))]
	r.last = now
	if r.left -= len(piece); r.left <= 0 {
		i.drop(n)
	}
	return piece, len(r.text)
}

func (c *Cluster) sendPiece(m *nats.Msg, n inquiryNumber, offset uint32) {
	piece, total := c.inquiries.piece(n, offset, time.Now())
	if total < 0 {
		c.sendFailure(m, n, offset, errors.New("its answer is not there any more"))
		return
	}
	b := binary.BigEndian.AppendUint32([]byte{pieceOK}, uint32(total))
	c.respond(m, piecePlace(c.opts.Member.Name, n, offset), append(b, piece...))
}

func (c *Cluster) sendFailure(m *nats.Msg, n inquiryNumber, offset uint32, why error) {
	b := append([]byte{pieceFails, 0, 0, 0, 0}, why.Error()...)
	c.respond(m, piecePlace(c.opts.Member.Name, n, offset), b)
}

// respond answers, sealed for a place.
func (c *Cluster) respond(m *nats.Msg, at string, text []byte) {
	if sealed, err := c.keys.Seal(at, text); err == nil {
		_ = m.Respond(sealed) // who asks waits no longer than it says
	}
}
