CREATE TABLE IF NOT EXISTS books (
  id VARCHAR(32) PRIMARY KEY,
  title VARCHAR(200) NOT NULL,
  price_cents BIGINT NOT NULL
);
INSERT IGNORE INTO books VALUES
  ('comedy', 'The Comedy of Errors', 1290), ('tempest', 'The Tempest', 1150), ('hamlet', 'Hamlet', 990),
  ('lear', 'King Lear', 1090), ('macbeth', 'Macbeth', 940), ('othello', 'Othello', 1020);
CREATE TABLE IF NOT EXISTS orders (
  id CHAR(36) PRIMARY KEY,
  customer VARCHAR(64) NOT NULL,
  book VARCHAR(32) NOT NULL,
  quantity INT NOT NULL,
  total_cents BIGINT NOT NULL,
  trace_id VARCHAR(32) NOT NULL,
  placed DATETIME(6) NOT NULL,
  FOREIGN KEY (book) REFERENCES books (id)
);
