//go:build race

package fib

// The race detector does not see atomic operations outside the Go heap, and would report what they order as races.
const raceDetector = true
