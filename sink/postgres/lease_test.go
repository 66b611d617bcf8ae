package postgres_test

const holderVariable = "SDR_SYNC_TEST_HOLDER"

func holdLease(string) int { return 0 }
