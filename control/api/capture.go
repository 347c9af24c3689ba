package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// POST /v1/capture takes a CaptureRequest and answers with CaptureEvents, one a line, until the capture ends or the client goes away.
// The first one says that it has begun; an error before that is answered as other requests' are.

// Limits of a capture.
const (
	DefaultCapturePackets = 1000
	MaxCapturePackets     = 10_000
	DefaultCaptureSeconds = 30
	MaxCaptureSeconds     = 300
)

// A CaptureRequest says which packets are wanted. Zero numbers are the defaults.
type CaptureRequest struct {
	Filter  string `json:"filter"`  // as in `causeway capture --help`; "": all packets
	Packets int    `json:"packets"` // that it ends after
	Seconds int    `json:"seconds"` // likewise
	Snaplen int    `json:"snaplen"` // bytes of each frame, and of each inner packet; 0: all
	Bytes   bool   `json:"bytes"`   // of packets: they are customers' traffic, in clear
	By      string `json:"by"`      // who asks, for the next one who does
}

// A CaptureEvent has one field that is not nil, or an error, with which the capture has ended.
type CaptureEvent struct {
	Begun  *CaptureRequest `json:"begun,omitempty"` // with the defaults filled in
	Packet *CapturedPacket `json:"packet,omitempty"`
	Counts *CaptureCounts  `json:"counts,omitempty"` // each second
	Ended  *CaptureEnd     `json:"ended,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// CaptureCounts are the packets since the capture's beginning.
type CaptureCounts struct {
	Seen    uint64 `json:"seen"`    // came
	Looked  uint64 `json:"looked"`  // of those, were looked at
	Matched uint64 `json:"matched"` // of those, matched the filter
	Shown   uint64 `json:"shown"`
}

// A CaptureEnd says why it ended: "packets", "seconds".
type CaptureEnd struct {
	Why    string        `json:"why"`
	Counts CaptureCounts `json:"counts"`
}

// A CapturedPacket is a packet as it came, and what was decided about it.
type CapturedPacket struct {
	Number       int       `json:"number"` // in this capture, from 1
	Time         time.Time `json:"time"`   // at which it came
	Origin       string    `json:"origin"` // port, host (through the TUN device), control (a probe, or what a tunnel's device sent)
	Interface    string    `json:"interface,omitempty"`
	Length       int       `json:"length"` // bytes of the frame; of the IP packet, where it came by no port
	Headers      string    `json:"headers,omitempty"`
	Frame        []byte    `json:"frame,omitempty"`
	InnerLength  int       `json:"inner_length,omitempty"`
	InnerHeaders string    `json:"inner_headers,omitempty"`
	Inner        []byte    `json:"inner,omitempty"` // as it came out of the tunnel

	FromTunnel   string `json:"from_tunnel,omitempty"`
	FromAccount  string `json:"from_account,omitempty"`
	IntoTunnel   string `json:"into_tunnel,omitempty"` // or was to go into it
	IntoAccount  string `json:"into_account,omitempty"`
	Verdict      string `json:"verdict"` // forwarded, delivered, punted, dropped, held (a fragment that waits for others)
	Drop         *Drop  `json:"drop,omitempty"`
	OutInterface string `json:"out_interface,omitempty"`
	Answered     bool   `json:"answered,omitempty"` // the node made a packet about it: an answer, an ICMP error

	Steps []CaptureStep `json:"steps"`
}

// A CaptureStep is a stage that the packet came through, and what was decided there.
type CaptureStep struct {
	Stage    string `json:"stage"`
	Decision string `json:"decision"`
}

// captureWriteLimit is how long the client may not take what it is given.
const captureWriteLimit = 10 * time.Second

// capture answers POST /v1/capture.
func capture(n Node) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q CaptureRequest
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&q); err != nil {
			answer(w, http.StatusUnprocessableEntity, problem{err.Error()})
			return
		}
		begun, control := false, http.NewResponseController(w)
		enc := json.NewEncoder(w)
		err := n.Capture(r.Context(), q, func(e CaptureEvent) error {
			if e == (CaptureEvent{}) {
				return control.Flush()
			}
			if !begun {
				w.Header().Set("Content-Type", "application/x-ndjson")
				begun = true
			}
			_ = control.SetWriteDeadline(time.Now().Add(captureWriteLimit)) // a Unix socket has one
			return enc.Encode(e)
		})
		switch {
		case err != nil && !begun:
			answer(w, http.StatusUnprocessableEntity, problem{err.Error()})
		case err != nil:
			_ = enc.Encode(CaptureEvent{Error: err.Error()}) // fails only if the client has gone
		}
	}
}

// Capture has the daemon capture packets, and calls f for each event, until the capture or ctx ends, or f returns an error.
func (c *Client) Capture(ctx context.Context, q CaptureRequest, f func(CaptureEvent) error) error {
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://causeway/v1/capture", bytes.NewReader(body))
	if err != nil {
		return err
	}
	patient := c.http
	patient.Timeout = 0
	resp, err := patient.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return c.refused(resp)
	}
	for dec := json.NewDecoder(resp.Body); ; {
		var e CaptureEvent
		switch err := dec.Decode(&e); {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("control socket %s: the daemon has ended the capture before its end (is it stopping?): %w", c.socket, err)
		case e.Error != "":
			return errors.New(e.Error)
		}
		if err := f(e); err != nil || e.Ended != nil {
			return err
		}
	}
}
