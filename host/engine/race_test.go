//go:build race

package engine_test

// raceDetector allocates on its own account.
const raceDetector = true
