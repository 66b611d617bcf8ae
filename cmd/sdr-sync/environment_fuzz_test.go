package main

import (
	"errors"
	"strings"
	"testing"
)

// FuzzEnvironment: whatever a variable holds, it makes a configuration or a ConfigError, the same one each time, and a secret is never part
// of the error's text.
func FuzzEnvironment(f *testing.F) {
	var names []string
	secret := map[string]bool{}
	for _, key := range configKeys() {
		if key.path != streamsSection {
			names = append(names, envName(key.path))
			secret[envName(key.path)] = key.isSecret()
		}
	}
	for i := range names {
		for _, value := range []string{"", "1", "7d", "https://esm.example", "hcso-213/cn-north-213,hcso-213/*", "month", "0.5"} {
			f.Add(uint8(i), value)
		}
	}
	f.Add(uint8(0), "\x00\n'); drop table x; --")
	f.Fuzz(func(t *testing.T, which uint8, value string) {
		name := names[int(which)%len(names)]
		path := write(t, everything)
		c, err := LoadConfig(path, []string{name + "=" + value}, nil)
		again, errAgain := LoadConfig(path, []string{name + "=" + value}, nil)
		var configErr *ConfigError
		if (c == nil) == (err == nil) || (c == nil) != (again == nil) || err != nil && (!errors.As(err, &configErr) || err.Error() != errAgain.Error()) {
			t.Fatalf("%s=%q gives %v, then %v", name, value, err, errAgain)
		}
		if secret[name] && err != nil && len(value) >= 8 && strings.Contains(err.Error(), value) {
			t.Errorf("%s=%q: the error shows it: %v", name, value, err)
		}
	})
}
