//go:build race

package routes

// raceDetector says that all is several times slower than it is.
const raceDetector = true
