package chaos

// What the tests look at from outside.
var (
	Findings = findings
	Findingf = findingf
)

// SharesDiffer compares sums as the judge does.
func SharesDiffer(want, got map[string][2]string) error {
	read := func(m map[string][2]string) shares {
		s := shares{}
		for key, v := range m {
			s[key] = share{v[0], v[1]}
		}
		return s
	}
	return read(want).differ("here", read(got))
}
