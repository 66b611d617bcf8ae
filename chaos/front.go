package chaos

import (
	"net/http"
	"net/http/httptest"
	"sync"
)

// front stands before the vendor. Faults that the vendor has no word for are put in here.
type front struct {
	mu      sync.Mutex
	vendor  http.Handler
	instead func(w http.ResponseWriter, r *http.Request, pass http.Handler)
}

func newFront(vendor http.Handler) *front { return &front{vendor: vendor} }

// serve puts another vendor behind it.
func (f *front) serve(vendor http.Handler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.vendor = vendor
}

// step lets answer see every call until the returned function is called; it passes on what it does not answer itself.
func (f *front) step(answer func(w http.ResponseWriter, r *http.Request, pass http.Handler)) (back func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.instead = answer
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.instead = nil
	}
}

// ServeHTTP answers as the vendor does, or otherwise.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	vendor, instead := f.vendor, f.instead
	f.mu.Unlock()
	if instead == nil {
		vendor.ServeHTTP(w, r)
		return
	}
	instead(w, r, vendor)
}

// recorded is the vendor's whole answer to a call, uncompressed.
func recorded(r *http.Request, vendor http.Handler) *httptest.ResponseRecorder {
	r.Header.Del("Accept-Encoding")
	answer := httptest.NewRecorder()
	vendor.ServeHTTP(answer, r)
	return answer
}
