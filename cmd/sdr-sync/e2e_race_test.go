//go:build race

package main

// thorough is how often the sweeps of random kills are made. The race detector makes everything several times as slow, and looks at
// other things.
const thorough = 1
