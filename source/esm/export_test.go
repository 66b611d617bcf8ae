package esm

// ParsePage is parsePage, for the fuzzer.
var ParsePage = parsePage
