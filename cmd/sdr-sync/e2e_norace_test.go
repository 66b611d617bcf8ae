//go:build !race

package main

// thorough is how often the sweeps of random kills are made.
const thorough = 3
